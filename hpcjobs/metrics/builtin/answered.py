"""answered: there is an answer at all."""

from __future__ import annotations

from hpcjobs.metrics.base import Metric
from hpcjobs.requests import Row, Target


class Answered(Metric):
    """1.0 where the completion, or what `task.extract` takes out of it, is not empty, else 0.0."""

    name = "answered"
    needs_target = False
    normalized = False
    binary = True

    def score(self, completion: str, target: Target, row: Row) -> float:
        return float(bool(completion.strip()))
