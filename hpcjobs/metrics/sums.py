"""Values that are made of sums over all samples, as BLEU or perplexity, and no means of scores."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from hpcjobs.metrics.blocks import HeldBlocks
from hpcjobs.metrics.bootstrap import Floats, percentiles, resampled_totals
from hpcjobs.metrics.fold import around, exponential, finite, nothing, numbers
from hpcjobs.run_folder.metrics_file import Summary

Interval = Callable[[float, Floats], "list[float] | None"]
# Powers of two: blocks are joined two by two.
MOST_BLOCKS = 8192
_FEW_BLOCKS = 256


def within(low: float, high: float) -> Interval:
    """value +- 1.96 standard deviations of the resamples' values, cut at the ends of what a value can be."""

    def interval(value: float, values: Floats) -> list[float] | None:
        ends = around(value, float(values.std(ddof=1)))
        return ends and [max(low, ends[0]), min(high, ends[1])]

    return interval


def in_logarithms(value: float, values: Floats) -> list[float] | None:
    """The same of the logarithm of a value that is positive, and may be many times larger than another one."""
    if value <= 0 or (values <= 0).any():
        return None
    ends = around(math.log(value), float(np.log(values).std(ddof=1)))
    return ends and [exponential(end) for end in ends]


class SumsFold:
    """The value of the sums of all samples' statistics, `width` numbers each, with a bootstrap of blocks of samples.

    A block is one sample as long as there are at most 8192 (256 in a group) of them; then neighbours are joined, two by
    two. Block bootstrap: Künsch, The Annals of Statistics 17(3), 1989. A sample without statistics counts nowhere.
    `interval` makes ci95 of the value and the resamples' values.
    """

    def __init__(self, width: int, value: Callable[[Floats], float], interval: Interval) -> None:
        self.n, self._width, self._value, self._interval = 0, width, value, interval
        self._divide(MOST_BLOCKS)

    def limit(self) -> None:
        """Make few blocks; those of 256 tell the standard error within about 5%."""
        self._divide(_FEW_BLOCKS)

    def _divide(self, most: int) -> None:
        self._held, self._blocks = HeldBlocks(self._width, most // 2), _Blocks(self._width, most)

    def add(self, scores: Floats, statistics: pa.Array | None = None) -> None:
        if statistics is None:
            return
        rows = numbers(statistics, self._width)
        rows = rows[np.isfinite(rows).all(axis=1)]
        self.n += len(rows)
        for block in self._held.add(rows):
            self._blocks.add(block)

    def summary(self) -> Summary:
        """value; stderr (the bootstrap's standard deviation), ci95, bootstrap_ci95; n, the samples with statistics."""
        rest = self._held.rest()
        if len(rest):
            self._blocks.add(rest)
        if not self.n:
            return nothing()
        blocks = self._blocks.sums
        value, stderr, interval, resampled = finite(self._value(blocks.sum(axis=0))), None, None, None
        if len(blocks) > 1 and value is not None:
            values = np.array([self._value(totals) for totals in resampled_totals(blocks)])
            values = values[np.isfinite(values)]
            if len(values) > 1:
                with np.errstate(over="ignore"):
                    stderr, resampled = finite(float(values.std(ddof=1))), list(percentiles(values))
                    interval = self._interval(value, values)
        return {"value": value, "stderr": stderr, "ci95": interval, "bootstrap_ci95": resampled, "n": self.n}


class _Blocks:
    """Sums of neighbouring rows, at most `most` of them: when they are that many, each two become one.

    Rows come in batches of `most / 2` but for the last, so that blocks end where batches do.
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
