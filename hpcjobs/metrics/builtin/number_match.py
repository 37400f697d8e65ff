"""number_match: whether the final number is the right one."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

from hpcjobs.metrics.base import Metric, golds
from hpcjobs.metrics.numbers import NumberReader
from hpcjobs.metrics.settings import Settings
from hpcjobs.requests import Row, Target


class NumberSettings(Settings):
    """`decimal`: what stands before the decimals, a point (1,234.5) or a comma (1.234,5)."""

    decimal: Literal["point", "comma"] = "point"


class NumberMatch(Metric):
    """1.0 if the final number of the completion equals a target by value (7 = 7.0, 1/2 = 0.5), else 0.0.

    A target that is not one number equals none. Source: Cobbe et al., 'Training verifiers to solve math word problems',
    2021 (the '####' mark).
    """

    name = "number_match"
    normalized = False
    binary = True
    revision = 2  # the first took the last number after ####, and knew no fractions, exponents and U+2212
    settings = NumberSettings

    def __init__(self) -> None:
        self._reader = NumberReader()

    def use(self, settings: Settings) -> None:
        """Use these options."""
        self._reader = NumberReader(NumberSettings.model_validate(settings.chosen).decimal == "comma")

    def score(self, completion: str, target: Target, row: Row) -> float:
        """1.0 if the final numbers are equal, else 0.0."""
        answer = self._reader.answer(completion)
        return float(answer is not None and any(self._reader.target(gold) == answer for gold in golds(target)))

    def refuse(self, target: Target) -> str:
        """Why the target is not one number; '' if it is, or one of several is."""
        if not golds(target) or any(self._reader.target(gold) is not None for gold in golds(target)):
            return ""
        return f"{target!r}"[:200] + " is not one number"

    def vote(self, text: str) -> Fraction | None:
        """The final number."""
        return self._reader.answer(text)
