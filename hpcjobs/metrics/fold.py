"""Folding samples' scores into a run's value, batch by batch, in flat memory."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Floats = npt.NDArray[np.float64]


class Fold(Protocol):
    """Takes a metric's scores in input order, and gives its value with what is known of its error."""

    def add(self, scores: Floats, statistics: pa.Array | None = None) -> None:
        """One more batch: scores (NaN for none) and, where the metric has them, its statistics, row by row."""
        ...

    def summary(self) -> dict[str, Any]:
        """value, stderr, ci95 and n at least; None where there is nothing to say."""
        ...


class MeanFold:
    """Count, mean and variance of scores.

    Joins two sums of squares: Chan, Golub, LeVeque, The American Statistician 37(3), 1983. The order of `add` is the
    input's order: the same table gives the same bits whatever ranks made it.
    """

    def __init__(self) -> None:
        self.n, self.mean, self._squares = 0, 0.0, 0.0

    def add(self, scores: Floats, statistics: pa.Array | None = None) -> None:
        scores = scores[~np.isnan(scores)]
        if not len(scores):
            return
        n, mean = len(scores), float(scores.mean())
        step, total = mean - self.mean, self.n + n
        self._squares += float(((scores - mean) ** 2).sum()) + step**2 * self.n * n / total
        self.mean += step * n / total
        self.n = total

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
