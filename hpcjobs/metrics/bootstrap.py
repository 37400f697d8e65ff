"""The bootstrap in constant memory: seeded resamples of a histogram of values, or of blocks of sums."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
RESAMPLES = 1000
MOST_VALUES = 4096
_SEED = 0
_DRAWN = 1 << 20


@dataclass
class Histogram:
    """Counts of each value, enough to draw bootstrap resamples.

    Exact for up to `most` distinct values. With more, neighbouring values are merged into their mean, those first that
    lose the least of the sum of squares; the overall mean does not change.
    """

    values: Floats = field(default_factory=lambda: np.empty(0))
    counts: Floats = field(default_factory=lambda: np.empty(0))
    most: int = MOST_VALUES

    def add(self, values: Floats) -> None:
        """Add a batch of values, which must be finite."""
        there = np.concatenate([self.values, values])
        weights = np.concatenate([self.counts, np.ones(len(values))])
        self.values, places = np.unique(there, return_inverse=True)
        self.counts = np.bincount(places.ravel(), weights, len(self.values)).astype(np.float64)
        while len(self.values) > self.most:
            self._join()

    def _join(self) -> None:
        """Merge up to half of the pairs of neighbours, but no more than needed."""
        pairs = len(self.values) // 2
        (low, high), (few, many) = (side[: 2 * pairs].reshape(-1, 2).T for side in (self.values, self.counts))
        with np.errstate(over="ignore"):
            loss = (high - low) ** 2 * (few * many / (few + many))
        chosen = np.argsort(loss, kind="stable")[: min((pairs + 1) // 2, len(self.values) - self.most)]
        share = (many / (few + many))[chosen]
        self.values[2 * chosen] = low[chosen] * (1 - share) + high[chosen] * share
        self.counts[2 * chosen] = (few + many)[chosen]
        self.values, self.counts = (np.delete(side, 2 * chosen + 1) for side in (self.values, self.counts))

    def means(self, resamples: int = RESAMPLES) -> Floats:
        """The means of `resamples` bootstrap resamples, with a fixed seed.

        The counts of a resample are multinomial: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section
        20.2.
        """
        draw, n = np.random.default_rng(_SEED), int(self.counts.sum())
        step = max(1, _DRAWN // len(self.values))
        sizes = [min(step, resamples - start) for start in range(0, resamples, step)]
        chances = self.counts / n
        return np.concatenate([draw.multinomial(n, chances, size) @ (self.values / n) for size in sizes])

    def interval(self) -> tuple[float, float]:
        """The 2.5% and 97.5% percentiles of the resamples' means."""
        return percentiles(self.means())


def resampled_totals(rows: Floats, resamples: int = RESAMPLES) -> Floats:
    """The column sums of `resamples` bootstrap resamples of the rows, shape (resamples, columns)."""
    draw, count = np.random.default_rng(_SEED), len(rows)
    step = max(1, _DRAWN // count)
    totals = []
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = draw.integers(0, count, (size, count)) + np.arange(size)[:, None] * count
        totals.append(np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count) @ rows)
    return np.concatenate(totals)


def percentiles(values: Floats) -> tuple[float, float]:
    """The 2.5% and 97.5% percentiles: a 95% interval."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
