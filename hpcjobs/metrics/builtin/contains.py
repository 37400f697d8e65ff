"""contains: whether the completion contains a correct answer."""

from __future__ import annotations

from hpcjobs.metrics.base import Metric, golds
from hpcjobs.requests import Row, Target


class Contains(Metric):
    """1.0 if the completion contains a target, ignoring case and outer whitespace, else 0.0."""

    name = "contains"
    binary = True

    def score(self, completion: str, target: Target, row: Row) -> float:
        """1.0 if the completion contains a target, else 0.0."""
        text = completion.casefold()
        wanted = [gold.strip().casefold() for gold in golds(target)]
        return float(any(gold in text for gold in wanted if gold))
