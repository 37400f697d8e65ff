"""The statistics of merge, report and compare against scipy: n of 0, 1, 2, 10 and 1,000, all equal, with NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from hpcjobs.compare.statistics import Differences
from hpcjobs.metrics.bootstrap import Floats
from hpcjobs.metrics.fold import MeanFold, Z
from hpcjobs.report.scores import score_of

SIZES = [0, 1, 2, 10, 1000]
# The level of +- 1.96 standard errors, a little more than 95 %.
LEVEL = 2 * stats.norm.cdf(Z) - 1
DRAW = np.random.default_rng(14)
SAMPLES: dict[str, dict[int, Floats]] = {
    "shares": {n: DRAW.random(n) for n in SIZES},
    "right or wrong": {n: (DRAW.random(n) < 0.3).astype(float) for n in SIZES},
    "all right": {n: np.ones(n) for n in SIZES},
    "all equal": {n: np.full(n, 0.1) for n in SIZES},
    "large": {n: 1e9 + DRAW.normal(size=n) for n in SIZES},
    "with NaN": {n: np.where(np.arange(n) % 3 == 1, np.nan, DRAW.random(n)) for n in SIZES},
    "no number": {n: np.full(n, np.nan) for n in SIZES},
}
CASES = [(name, n) for name in SAMPLES for n in SIZES]


def close(value: float) -> object:
    return pytest.approx(value, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("name", "n"), CASES)
def test_a_mean_and_its_interval_are_scipys(name: str, n: int) -> None:
    scores = SAMPLES[name][n]
    known = scores[~np.isnan(scores)]
    fold = MeanFold()
    for part in np.array_split(scores, 3):
        fold.add(part)
    found = fold.summary()
    assert found["n"] == len(known)
    if not len(known):
        assert (found["value"], found["stderr"], found["ci95"], found.get("bootstrap_ci95")) == (None,) * 4
        return
    assert found["value"] == close(float(known.mean()))
    if len(known) == 1:
        assert (found["stderr"], found["ci95"], found.get("bootstrap_ci95")) == (None, None, None)
        return
    assert found["stderr"] == pytest.approx(stats.sem(known), rel=1e-7, abs=1e-12)
    assert found["ci95"] is not None
    if set(known) <= {0.0, 1.0}:
        theirs = stats.binomtest(int(known.sum()), len(known)).proportion_ci(LEVEL, method="wilson")
        assert found["ci95"] == close_pair(theirs.low, theirs.high)
    else:
        error = float(stats.sem(known))
        ends = (known.mean() - Z * error, known.mean() + Z * error)
        assert found["ci95"] == close_pair(*ends)
    assert score_of(name, found).n == len(known)


def close_pair(low: float, high: float) -> object:
    return pytest.approx([low, high], rel=1e-7, abs=1e-9)


@pytest.mark.parametrize(("name", "n"), CASES)
def test_the_bootstrap_is_scipys_up_to_its_own_noise(name: str, n: int) -> None:
    scores = SAMPLES[name][n]
    known, fold = scores[~np.isnan(scores)], MeanFold()
    fold.add(scores)
    interval = fold.summary().get("bootstrap_ci95")
    if len(known) < 2:
        assert interval is None
        return
    assert interval is not None
    if np.ptp(known) == 0:
        assert interval == pytest.approx([known[0]] * 2)
        return
    theirs = stats.bootstrap((known,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    noise = 0.25 * float(known.std(ddof=1)) / math.sqrt(len(known)) + 0.06 * (len(known) == 2)
    assert interval == pytest.approx([theirs.low, theirs.high], abs=noise)


@pytest.mark.parametrize(("name", "n"), CASES)
def test_paired_differences_are_scipys(name: str, n: int) -> None:
    a = SAMPLES[name][n]
    b = np.where(np.arange(n) % 4 == 0, 1 - a, a) if set(a) <= {0.0, 1.0} else a + DRAW.normal(size=n)
    both = np.isfinite(a) & np.isfinite(b)
    found = Differences()
    for start in range(0, n, 7):
        found.add(a[start : start + 7], b[start : start + 7])
    assert (found.n, found.unscored) == (both.sum(), n - both.sum())
    if found.n < 2:
        assert (found.stderr, found.interval(), found.bootstrap()) == (None, None, None)
        return
    test = stats.ttest_rel(b[both], a[both])
    theirs, difference = test.confidence_interval(0.95), (b - a)[both]
    assert found.mean == pytest.approx(float(difference.mean()), rel=1e-9, abs=1e-9)
    assert found.stderr == pytest.approx(float(stats.sem(difference)), rel=1e-7, abs=1e-12)
    if np.ptp(difference):
        assert found.interval() == pytest.approx((theirs.low, theirs.high), rel=1e-6, abs=1e-8)
    else:
        assert found.interval() == (found.mean, found.mean)


@pytest.mark.parametrize(
    ("worse", "better"), [(0, 0), (1, 0), (0, 5), (7, 3), (12, 12), (13, 12), (40, 10), (600, 400)]
)
def test_mcnemar_is_scipys(worse: int, better: int) -> None:
    found, pairs = Differences(), worse + better
    found.add(np.repeat([1.0, 0.0], [worse, better]), np.repeat([0.0, 1.0], [worse, better]))
    test = found.mcnemar()
    if not pairs:
        assert test is None
        return
    assert test is not None
    if test.method == "exact":
        assert test.p_value == close(stats.binomtest(min(worse, better), pairs).pvalue)
    else:
        statistic = max(0, abs(worse - better) - 1) ** 2 / pairs
        assert (test.statistic, test.p_value) == (close(statistic), close(float(stats.chi2.sf(statistic, 1))))
