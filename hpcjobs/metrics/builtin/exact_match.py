"""exact_match: the answer is one of the right ones, white space at the ends aside."""

from __future__ import annotations

from hpcjobs.metrics.base import Metric, golds
from hpcjobs.requests import Row, Target


class ExactMatch(Metric):
    """1.0 where the completion equals a target after `strip`, and after `task.normalize` of both, else 0.0."""

    name = "exact_match"
    binary = True

    def score(self, completion: str, target: Target, row: Row) -> float:
        return float(any(completion.strip() == gold.strip() for gold in golds(target)))
