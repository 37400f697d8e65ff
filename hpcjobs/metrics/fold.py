"""Fold the scores of samples into a run's value, batch by batch, in constant memory."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import pyarrow as pa

from hpcjobs.metrics.blocks import BlockBuffer
from hpcjobs.metrics.bootstrap import MOST_VALUES, Floats, Histogram
from hpcjobs.run_folder.metrics_file import Summary

Z = 1.96
# Scores per block, for each value in the histogram.
_BLOCK = 16
_FEW_VALUES = 64


class Fold(Protocol):
    """Takes a metric's scores in input order and gives its value with error estimates.

    A fold may have `limit()`, which is called before the first `add` if there is one fold for each of many groups: it
    then uses less memory, with a coarser bootstrap.
    """

    def add(self, scores: Floats, statistics: pa.Array | None = None) -> None:
        """Add a batch: scores (NaN for none), shape (n,), and the metric's statistics row by row, if it has any."""
        ...

    def summary(self) -> Summary:
        """A dict with at least value, stderr, ci95 and n; None where undefined. Nothing is added afterwards."""
        ...


class MeanFold:
    """Count, mean, variance and bootstrap of scores, identical to the bit whatever the batches.

    Sums of squares are joined by Chan, Golub, LeVeque, The American Statistician 37(3), 1983. Scores are added in input
    order, so the same table gives the same bits whichever ranks made it. `bounds` are the least and greatest possible
    score.
    """

    def __init__(self, bounds: tuple[float, float] | None = None) -> None:
        self._bounds = bounds
        self.n, self.mean, self._squares = 0, 0.0, 0.0
        self._set_resolution(MOST_VALUES)

    def limit(self) -> None:
        """Use fewer bins; 64 bins lose about 1 / 64 ** 2 of the variance."""
        self._set_resolution(_FEW_VALUES)

    def _set_resolution(self, values: int) -> None:
        self._histogram, self._buffer = Histogram(most=values), BlockBuffer(1, _BLOCK * values)

    def add(self, scores: Floats, statistics: pa.Array | None = None) -> None:
        """Add a batch of scores."""
        for block in self._buffer.add(scores[np.isfinite(scores)]):
            self._fold(block[:, 0])

    def _fold(self, scores: Floats) -> None:
        if not len(scores):
            return
        with np.errstate(over="ignore", invalid="ignore"):
            n, mean = len(scores), float(scores.mean())
            step, total = mean - self.mean, self.n + n
            self._squares += float(((scores - mean) ** 2).sum() + np.float64(step) ** 2 * self.n * n / total)
            self.mean += step * n / total
            self.n = total
        self._histogram.add(scores)

    @property
    def stderr(self) -> float | None:
        """Standard error of the mean (sample variance); None below two samples."""
        return finite(math.sqrt(self._squares / (self.n - 1) / self.n)) if self.n > 1 else None

    @property
    def binary(self) -> bool:
        """Whether every score is 0 or 1."""
        return bool(np.isin(self._histogram.values, (0.0, 1.0)).all())

    def summary(self) -> Summary:
        """value, stderr, ci95, bootstrap_ci95 and n; None where undefined.

        ci95 is the normal approximation, cut at the bounds; Wilson's interval if all scores are 0 or 1.
        """
        self._fold(self._buffer.rest()[:, 0])
        if not self.n:
            return nothing()
        stderr = self.stderr
        interval = resampled = None
        if stderr is not None:
            interval = wilson(self.mean, self.n) if self.binary else self.within(around(self.mean, stderr))
            resampled = list(self._histogram.interval())
        return {
            "value": finite(self.mean), "stderr": stderr, "ci95": interval, "bootstrap_ci95": resampled, "n": self.n,
        }  # fmt: skip

    def within(self, ends: list[float] | None) -> list[float] | None:
        """An interval cut at the bounds (0 and 1 if every score is one of them), unless the mean is outside of them."""
        bounds = (0.0, 1.0) if self._bounds is None and self.binary else self._bounds
        if ends is None or bounds is None or not bounds[0] <= self.mean <= bounds[1]:
            return ends
        return [max(bounds[0], ends[0]), min(bounds[1], ends[1])]


def nothing() -> Summary:
    """The summary of no samples."""
    return {"value": None, "stderr": None, "ci95": None, "bootstrap_ci95": None, "n": 0}


def around(value: float, stderr: float) -> list[float] | None:
    """The 95% interval by normal approximation; None if it is not finite."""
    ends = [value - Z * stderr, value + Z * stderr]
    return ends if all(map(math.isfinite, ends)) else None


def wilson(share: float, n: int) -> list[float]:
    """Wilson's 95% score interval of a share of `n` samples; it stays within 0 and 1.

    Source: Wilson, Journal of the American Statistical Association 22, 1927; recommended for any n by Brown, Cai and
    DasGupta, Interval estimation for a binomial proportion, Statistical Science 16(2), 2001.
    """
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(max(0.0, share * (1 - share)) / n + Z**2 / (4 * n**2))
    return [max(0.0, middle - half), min(1.0, middle + half)]


def finite(value: float) -> float | None:
    """`value`; None if it is not finite, since JSON has no such numbers."""
    return value if math.isfinite(value) else None


def exponential(value: float) -> float:
    """e to the power of `value`; infinity on overflow."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def numbers(statistics: pa.Array, width: int) -> Floats:
    """Lists of `width` numbers as rows, shape (n, width); NaN for null."""
    rows = np.full((len(statistics), width), np.nan)
    there = statistics.is_valid().to_numpy(zero_copy_only=False)
    rows[there] = statistics.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return rows
