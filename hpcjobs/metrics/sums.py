"""Values computed from sums over all samples, such as BLEU or perplexity, instead of means of scores."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from hpcjobs.metrics.blocks import BlockBuffer
from hpcjobs.metrics.bootstrap import Floats, percentiles, resampled_totals
from hpcjobs.metrics.fold import around, exponential, finite, nothing, numbers
from hpcjobs.run_folder.metrics_file import Summary

Interval = Callable[[float, Floats], "list[float] | None"]
# Powers of two, because blocks are joined in pairs.
MOST_BLOCKS = 8192
_FEW_BLOCKS = 256


def within(low: float, high: float) -> Interval:
    """An interval function: value +- 1.96 standard deviations of the resampled values, cut at `low` and `high`."""

    def interval(value: float, values: Floats) -> list[float] | None:
        ends = around(value, float(values.std(ddof=1)))
        return ends and [max(low, ends[0]), min(high, ends[1])]

    return interval


def in_logarithms(value: float, values: Floats) -> list[float] | None:
    """The same interval on the logarithms of the values, for positive values that span orders of magnitude."""
    if value <= 0 or (values <= 0).any():
        return None
    ends = around(math.log(value), float(np.log(values).std(ddof=1)))
    return ends and [exponential(end) for end in ends]


class SumsFold:
    """A value computed from the sums of all samples' statistics, `width` numbers each, with a block bootstrap.

    A block is one sample for up to 8192 samples (256 in a group); beyond that, neighbouring blocks are joined in pairs.
    Block bootstrap: Künsch, The Annals of Statistics 17(3), 1989. Samples without statistics are not counted.
    `interval` makes ci95 from the value and the resampled values.
    """

    def __init__(self, width: int, value: Callable[[Floats], float], interval: Interval) -> None:
        self.n, self.width, self._value, self._interval = 0, width, value, interval
        self._divide(MOST_BLOCKS)

    def limit(self) -> None:
        """Use fewer blocks; 256 estimate the standard error within about 5%."""
        self._divide(_FEW_BLOCKS)

    def _divide(self, most: int) -> None:
        self._buffer, self._blocks = BlockBuffer(self.width, most // 2), _Blocks(self.width, most)

    def add(self, scores: Floats, statistics: pa.Array | None = None) -> None:
        """Add a batch of statistics, one list of `width` numbers per sample."""
        if statistics is None:
            return
        rows = numbers(statistics, self.width)
        rows = rows[np.isfinite(rows).all(axis=1)]
        self.n += len(rows)
        for block in self._buffer.add(rows):
            self._blocks.add(block)

    def summary(self) -> Summary:
        """value; stderr (standard deviation of the bootstrap), ci95, bootstrap_ci95; n, the samples with statistics."""
        rest = self._buffer.rest()
        if len(rest):
            self._blocks.add(rest)
        if not self.n:
            return nothing()
        blocks = self._blocks.sums
        value, stderr, interval, resampled = finite(self._value(blocks.sum(axis=0))), None, None, None
        if len(blocks) > 1 and value is not None:
            stderr, interval, resampled = self.errors(value, resampled_totals(blocks))
        return {"value": value, "stderr": stderr, "ci95": interval, "bootstrap_ci95": resampled, "n": self.n}

    def errors(self, value: float, totals: Floats) -> tuple[float | None, list[float] | None, list[float] | None]:
        """stderr, ci95 and bootstrap_ci95 of a value, from the sums of resamples, shape (resamples, width)."""
        values = np.array([self._value(each) for each in totals])
        values = values[np.isfinite(values)]
        if len(values) < 2:
            return None, None, None
        with np.errstate(over="ignore"):
            return finite(float(values.std(ddof=1))), self._interval(value, values), list(percentiles(values))


class _Blocks:
    """Sums of neighbouring rows, at most `most` of them; when full, pairs are joined.

    Rows come in batches of `most / 2`, except the last, so that blocks end where batches do.
    """

    def __init__(self, width: int, most: int) -> None:
        self._most, self._size, self._open = most, 1, 0
        self.sums: Floats = np.empty((0, width))

    def add(self, rows: Floats) -> None:
        if len(self.sums) == self._most and not self._open:
            self.sums, self._size = self.sums[::2] + self.sums[1::2], 2 * self._size
        if self._open:  # a block larger than a batch goes on
            self.sums[-1] += rows.sum(axis=0)
        else:
            self.sums = np.concatenate([self.sums, np.add.reduceat(rows, np.arange(0, len(rows), self._size))])
        self._open = (self._open + len(rows)) % self._size
