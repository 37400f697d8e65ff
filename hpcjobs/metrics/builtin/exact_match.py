"""exact_match: whether the answer equals a correct one, ignoring outer whitespace."""

from __future__ import annotations

from hpcjobs.metrics.base import Metric, golds
from hpcjobs.requests import Row, Target


class ExactMatch(Metric):
    """1.0 if the completion equals a target, after `strip` and `task.normalize` of both, else 0.0."""

    name = "exact_match"
    binary = True

    def score(self, completion: str, target: Target, row: Row) -> float:
        """1.0 if the stripped completion equals a stripped target, else 0.0."""
        return float(any(completion.strip() == gold.strip() for gold in golds(target)))
