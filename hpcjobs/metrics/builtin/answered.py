"""answered: whether there is an answer at all."""

from __future__ import annotations

from hpcjobs.metrics.base import Metric
from hpcjobs.requests import Row, Target


class Answered(Metric):
    """1.0 if the completion, after `task.extract`, is not empty, else 0.0."""

    name = "answered"
    needs_target = False
    normalized = False
    binary = True

    def score(self, completion: str, target: Target, row: Row) -> float:
        """1.0 if the completion is not blank, else 0.0."""
        return float(bool(completion.strip()))
