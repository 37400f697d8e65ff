"""Folding samples' scores into a run's value, batch by batch, in flat memory."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import pyarrow as pa

from hpcjobs.metrics.blocks import HeldBlocks
from hpcjobs.metrics.bootstrap import MOST_VALUES, Floats, Histogram
from hpcjobs.run_folder.metrics_file import Summary

Z = 1.96
# Scores a block for each value that the histogram tells apart.
_BLOCK = 16
_FEW_VALUES = 64


class Fold(Protocol):
    """Takes a metric's scores in input order, and gives its value with what is known of its error.

    A fold that also has `limit()` holds less where there is one for each of many groups, at the price of a coarser
    bootstrap; it is called before the first `add`.
    """

    def add(self, scores: Floats, statistics: pa.Array | None = None) -> None:
        """One more batch: scores (NaN for none) and, where the metric has them, its statistics, row by row."""
        ...

    def summary(self) -> Summary:
        """value, stderr, ci95 and n at least; None where there is nothing to say. Nothing is added after it."""
        ...


class MeanFold:
    """Count, mean, variance and a bootstrap of scores: the same to the bit whatever batches they come in.

    Joins two sums of squares: Chan, Golub, LeVeque, The American Statistician 37(3), 1983. The order of `add` is the
    input's order: the same table gives the same bits whatever ranks made it. `bounds`: between which all scores are.
    """

    def __init__(self, bounds: tuple[float, float] | None = None) -> None:
        self._bounds = bounds
        self.n, self.mean, self._squares = 0, 0.0, 0.0
        self._tell_apart(MOST_VALUES)

    def limit(self) -> None:
        """Tell few values apart; 64 bins lose about 1 / 64 ** 2 of a variance."""
        self._tell_apart(_FEW_VALUES)

    def _tell_apart(self, values: int) -> None:
        self._seen, self._held = Histogram(most=values), HeldBlocks(1, _BLOCK * values)

    def add(self, scores: Floats, statistics: pa.Array | None = None) -> None:
        for block in self._held.add(scores[~np.isnan(scores)]):
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
        self._seen.add(scores)

    @property
    def stderr(self) -> float | None:
        """Standard error of the mean (sample variance); None below two samples."""
        return finite(math.sqrt(self._squares / (self.n - 1) / self.n)) if self.n > 1 else None

    @property
    def binary(self) -> bool:
        """Whether every score is 0 or 1."""
        return bool(np.isin(self._seen.values, (0.0, 1.0)).all())

    def summary(self) -> Summary:
        """value, stderr, ci95 (normal approximation, cut at the bounds; of 0s and 1s Wilson's), bootstrap_ci95 and n;
        None where there is nothing to say.
        """
        self._fold(self._held.rest()[:, 0])
        if not self.n:
            return nothing()
        stderr = self.stderr
        interval = resampled = None
        if stderr is not None:
            interval = wilson(self.mean, self.n) if self.binary else self._within(around(self.mean, stderr))
            resampled = list(self._seen.interval())
        return {
            "value": finite(self.mean), "stderr": stderr, "ci95": interval, "bootstrap_ci95": resampled, "n": self.n,
        }  # fmt: skip

    def _within(self, ends: list[float] | None) -> list[float] | None:
        """An interval cut at the bounds, unless the mean itself is beyond what was declared."""
        if ends is None or self._bounds is None or not self._bounds[0] <= self.mean <= self._bounds[1]:
            return ends
        return [max(self._bounds[0], ends[0]), min(self._bounds[1], ends[1])]


def nothing() -> Summary:
    """The summary of no samples."""
    return {"value": None, "stderr": None, "ci95": None, "bootstrap_ci95": None, "n": 0}


def around(value: float, stderr: float) -> list[float] | None:
    """The 95% interval by normal approximation."""
    ends = [value - Z * stderr, value + Z * stderr]
    return ends if all(map(math.isfinite, ends)) else None


def wilson(share: float, n: int) -> list[float]:
    """The 95% score interval of a share of `n` samples, which stays within 0 and 1.

    Source: Wilson, Journal of the American Statistical Association 22, 1927; recommended for any n by Brown, Cai and
    DasGupta, Interval estimation for a binomial proportion, Statistical Science 16(2), 2001.
    """
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(max(0.0, share * (1 - share)) / n + Z**2 / (4 * n**2))
    return [max(0.0, middle - half), min(1.0, middle + half)]


def finite(value: float) -> float | None:
    """`value`; None where it is no finite number, which JSON does not have."""
    return value if math.isfinite(value) else None


def exponential(value: float) -> float:
    """e to the `value`; infinity where that is beyond numbers."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def numbers(statistics: pa.Array, width: int) -> Floats:
    """Lists of `width` numbers as rows, shape (n, width); NaN where there is no list."""
    rows = np.full((len(statistics), width), np.nan)
    there = statistics.is_valid().to_numpy(zero_copy_only=False)
    rows[there] = statistics.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return rows
