"""A metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpcjobs.metrics.base import Metric
from hpcjobs.requests import Target


class Digits(Metric):
    """The share of an answer that is digits: the fewer, the better."""

    name = "digits"
    needs_target = False
    lower_is_better = True
    bounds = (0.0, 1.0)

    def score(self, completion: str, target: Target, row: Mapping[str, Any]) -> float:
        return sum(letter.isdigit() for letter in completion) / len(completion) if completion else 0.0
