"""Statistics of paired scores: mean difference with intervals, and McNemar's test, in constant memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from hpcjobs.metrics.bootstrap import Floats, Histogram

# The exact test is used below this many discordant pairs, as Sokal and Rohlf, Biometry, advise for the sign test.
EXACT_BELOW = 25
_EXACT_T = 100


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


def t_quantile(degrees: int) -> float:
    """The two-sided 95% quantile of Student's t distribution with `degrees` >= 1 degrees of freedom.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4 (exact, up to 100 degrees) and
    26.7.5 (above them; its error is below 1e-9 there).
    """
    if degrees > _EXACT_T:
        x = NormalDist().inv_cdf(0.975)
        terms = (
            (x**3 + x) / 4, (5 * x**5 + 16 * x**3 + 3 * x) / 96, (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
            (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
        )  # fmt: skip
        return x + math.fsum(term / float(degrees) ** power for power, term in enumerate(terms, 1))
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < 0.95 else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def _within(angle: float, degrees: int) -> float:
    """The probability of |T| <= sqrt(degrees) * tan(angle)."""
    sine, cosine, odd = math.sin(angle), math.cos(angle), degrees % 2
    if degrees == 1:
        return 2 * angle / math.pi
    term = total = cosine if odd else 1.0
    for power in range(2 + odd, degrees - 1, 2):
        term *= cosine**2 * (power - 1) / power
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


class Differences:
    """The differences B - A of paired scores, accumulated in batches: counts, mean, variance, bootstrap.

    `a` and `b` are the sums of the scores. `unscored` counts pairs without a finite score on either side, which are
    left out. `binary`: every score so far is 0 or 1.
    """

    def __init__(self) -> None:
        self.n = self.unscored = self.better = self.worse = 0
        self.a = self.b = self._sum = self._squares = 0.0
        self.binary = True
        self._histogram = Histogram()

    def add(self, a: Floats, b: Floats) -> None:
        """Add a batch of scores, pair by pair, each of shape (n,); NaN for none."""
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
        """The standard error of the mean difference (sample variance); None below two pairs."""
        return _finite(math.sqrt(self._squares / (self.n - 1) / self.n)) if self.n > 1 else None

    def interval(self) -> tuple[float, float] | None:
        """The 95% interval of the mean difference by the paired t-test; None below two pairs."""
        mean, stderr = self.mean, self.stderr
        if mean is None or stderr is None:
            return None
        half = t_quantile(self.n - 1) * stderr
        return mean - half, mean + half

    def bootstrap(self) -> tuple[float, float] | None:
        """The 95% percentile interval of the mean difference over 1000 seeded resamples; None below two pairs."""
        return self._histogram.interval() if self.n > 1 and self.stderr is not None else None

    def mcnemar(self) -> McNemar | None:
        """McNemar's test of the pairs that changed; None unless every score is 0 or 1."""
        return mcnemar(self.worse, self.better) if self.binary and self.n else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
