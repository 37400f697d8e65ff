"""number_match: GSM8K's comparison of the final number."""

from __future__ import annotations

import re
from decimal import Decimal

from hpcjobs.metrics.base import Metric, golds
from hpcjobs.requests import Row, Target

_NUMBER = re.compile(r"(?<![\w.])-?\$?\d[\d,]*(?:\.\d+)?|(?<![\w.])-?\$?\.\d+")
_MARKED = re.compile(r"####\s*(-?\$?[\d,]*\.?\d+)")


def final_number(text: str) -> Decimal | None:
    """The number after the last '####', else the last number in the text, ignoring commas and '$'; None if there is
    none.
    """
    found = _MARKED.findall(text) or _NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "").replace("$", "")) if found else None


class NumberMatch(Metric):
    """1.0 if the final number of the completion equals a target's by value (7 = 7.0), else 0.0.

    Source: Cobbe et al., 'Training verifiers to solve math word problems', 2021 (the '####' mark).
    """

    name = "number_match"
    normalized = False
    binary = True

    def score(self, completion: str, target: Target, row: Row) -> float:
        """1.0 if the final numbers are equal, else 0.0."""
        answer = final_number(completion)
        return float(answer is not None and any(final_number(gold) == answer for gold in golds(target)))

    def vote(self, text: str) -> Decimal | None:
        """The final number."""
        return final_number(text)
