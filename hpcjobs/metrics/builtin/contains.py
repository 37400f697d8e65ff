"""contains: a right answer stands somewhere in the completion."""

from __future__ import annotations

from hpcjobs.metrics.base import Metric, golds
from hpcjobs.requests import Row, Target


class Contains(Metric):
    """1.0 where the completion contains a target (case and outer white space aside), else 0.0."""

    name = "contains"
    binary = True

    def score(self, completion: str, target: Target, row: Row) -> float:
        text = completion.casefold()
        wanted = [gold.strip().casefold() for gold in golds(target)]
        return float(any(gold in text for gold in wanted if gold))
