"""Folding samples' scores into a run's value, one at a time, in flat memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass
class Fold:
    """Count, mean and variance of scores; Welford's method, so that long sums stay exact enough.

    Source: B. P. Welford, Technometrics 4(3), 1962. The order of `add` is the input's order: the same
    table gives the same bits whatever ranks made it.
    """

    n: int = 0
    mean: float = 0.0
    _squares: float = 0.0

    def add(self, value: float) -> None:
        self.n += 1
        step = value - self.mean
        self.mean += step / self.n
        self._squares += step * (value - self.mean)

    @property
    def stderr(self) -> float | None:
        """Standard error of the mean (sample variance); None below two samples."""
        return math.sqrt(self._squares / (self.n - 1) / self.n) if self.n > 1 else None

    def summary(self) -> dict[str, Any]:
        """value, stderr, ci95 (normal approximation) and n; None where there is nothing to say."""
        if not self.n:
            return {"value": None, "stderr": None, "ci95": None, "n": 0}
        stderr = self.stderr
        interval = None if stderr is None else [self.mean - 1.96 * stderr, self.mean + 1.96 * stderr]
        return {"value": self.mean, "stderr": stderr, "ci95": interval, "n": self.n}
