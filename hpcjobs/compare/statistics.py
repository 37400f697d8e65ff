"""Statistics of paired scores: mean difference with intervals, and McNemar's test, in constant memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hpcjobs.metrics.bootstrap import Floats, Histogram, percentiles
from hpcjobs.metrics.clusters import ClusterTotals, Codes, clustered_stderr
from hpcjobs.metrics.student import t_quantile

# The exact test is used below this many discordant pairs, as Sokal and Rohlf, Biometry, advise for the sign test.
EXACT_BELOW = 25


@dataclass(frozen=True)
class McNemar:
    """The result of McNemar's test; `statistic` is None if the test is exact."""

    method: str
    statistic: float | None
    p_value: float


def mcnemar(worse: int, better: int) -> McNemar:
    """McNemar's test, for `worse` pairs that changed from 1 to 0 and `better` pairs from 0 to 1.

    Exact and two-sided (binomial, p = 1/2) below 25 such pairs, else chi-square with one degree of freedom and
    continuity correction. Sources: McNemar, Psychometrika 12, 1947; Edwards, Psychometrika 13, 1948.
    """
    pairs = worse + better
    if pairs < EXACT_BELOW:
        tail = sum(math.comb(pairs, few) for few in range(min(worse, better) + 1))
        return McNemar("exact", None, min(1.0, 2 * tail / 2**pairs))
    statistic = max(0, abs(worse - better) - 1) ** 2 / pairs
    return McNemar("chi-square", statistic, math.erfc(math.sqrt(statistic / 2)))


class Differences:
    """The differences B - A of paired scores, accumulated in batches: counts, mean, variance, bootstrap.

    With clusters, errors and intervals are those of clusters. `a` and `b` are the sums of the scores. `unscored` counts
    pairs without a finite score on either side, which are left out. `binary`: every score so far is 0 or 1.
    """

    def __init__(self) -> None:
        self.n = self.unscored = self.better = self.worse = 0
        self.a = self.b = self._sum = self._squares = 0.0
        self.binary = True
        self._histogram = Histogram()
        self._clusters: ClusterTotals | None = None

    def add(self, a: Floats, b: Floats, clusters: Codes | None = None) -> None:
        """Add a batch of scores, pair by pair, each of shape (n,), NaN for none.

        `clusters` has the number of each pair's cluster, if they have any.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            scored = np.isfinite(b - a)
            a, b = a[scored], b[scored]
            self.unscored += len(scored) - len(a)
            if not len(a):
                return
            difference = b - a
            self.binary = self.binary and all(bool(((side == 0) | (side == 1)).all()) for side in (a, b))
            self.better += int((difference > 0).sum())
            self.worse += int((difference < 0).sum())
            self.a, self.b = self.a + float(a.sum()), self.b + float(b.sum())
            self._fold(difference)
        self._histogram.add(difference)
        if clusters is not None:
            self._clusters = self._clusters or ClusterTotals(2)
            self._clusters.add(np.column_stack([difference, np.ones(len(difference))]), clusters[scored])

    def _fold(self, difference: Floats) -> None:
        """Joins two sums of squares. Source: Chan, Golub, LeVeque, The American Statistician 37(3), 1983."""
        n, total = len(difference), float(difference.sum())
        self._squares += float(((difference - total / n) ** 2).sum())
        if self.n:
            self._squares += (total / n - self._sum / self.n) ** 2 * self.n * n / (self.n + n)
        self.n, self._sum = self.n + n, self._sum + total

    @property
    def mean(self) -> float | None:
        """The mean difference; None without pairs."""
        return _finite(self._sum / self.n) if self.n else None

    @property
    def stderr(self) -> float | None:
        """The standard error of the mean difference: sample variance, or that of clusters. None below two of them."""
        if self._clusters is not None:
            return clustered_stderr(self._clusters.sums)
        return _finite(math.sqrt(self._squares / (self.n - 1) / self.n)) if self.n > 1 else None

    def interval(self) -> tuple[float, float] | None:
        """The 95% interval of the mean difference by Student's t; None below two pairs, or clusters."""
        mean, stderr = self.mean, self.stderr
        if mean is None or stderr is None:
            return None
        half = t_quantile((self.clusters or self.n) - 1) * stderr
        return mean - half, mean + half

    def bootstrap(self) -> tuple[float, float] | None:
        """The 95% percentile interval of the mean difference over 1000 seeded resamples of pairs, or of clusters; None
        below two of them.
        """
        if self.n < 2 or self.stderr is None:
            return None
        if self._clusters is None:
            return self._histogram.interval()
        totals = self._clusters.resampled()
        return percentiles(totals[:, 0] / totals[:, 1])

    @property
    def clusters(self) -> int | None:
        """The number of clusters; None if the pairs have none."""
        return None if self._clusters is None else len(self._clusters.sums)

    def mcnemar(self) -> McNemar | None:
        """McNemar's test of the pairs that changed; None unless every score is 0 or 1.

        None with clusters, too: it takes pairs for independent.
        """
        return mcnemar(self.worse, self.better) if self.binary and self.n and self._clusters is None else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
