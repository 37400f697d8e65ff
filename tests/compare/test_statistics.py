"""Paired statistics against textbook values, other people's programs and brute force."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcjobs.compare.statistics import Differences, McNemar, mcnemar

# Student's sleep data (The probable error of a mean, Biometrika 6, 1908): hours gained with two drugs.
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def differences(a: Sequence[float], b: Sequence[float], size: int = 10**9) -> Differences:
    found = Differences()
    for start in range(0, len(a), size):
        found.add(np.array(a[start : start + size], float), np.array(b[start : start + size], float))
    return found


def test_students_sleep_data() -> None:
    """R: t.test(extra ~ group, paired): mean 1.58, t = 4.0621, 95% interval 0.7001142 to 2.4598858."""
    found = differences(FIRST, SECOND)
    assert (found.n, found.better, found.worse, found.binary) == (10, 9, 0, False)
    assert [found.a / 10, found.b / 10] == pytest.approx([0.75, 2.33])
    assert found.mean == pytest.approx(1.58)
    assert found.mean is not None
    assert found.stderr is not None
    assert found.mean / found.stderr == pytest.approx(4.0621, abs=1e-4)
    assert found.interval() == pytest.approx((0.7001142, 2.4598858), abs=1e-7)
    assert found.mcnemar() is None


@pytest.mark.parametrize(
    ("worse", "better", "method", "statistic", "p_value"),
    [
        # Wikipedia, McNemar's test: 6 against 16 discordant pairs: exact p = 0.052; 121 against 59: 20.67 corrected
        (6, 16, "exact", None, 0.0525),
        (16, 6, "exact", None, 0.0525),
        (121, 59, "chi-square", 20.672, 5.45e-6),
        # Agresti, Categorical Data Analysis, 1990, page 350 (R's example of mcnemar.test): 63 ** 2 / 236
        (86, 150, "chi-square", 16.818, 4.115e-5),
        (0, 0, "exact", None, 1.0), (1, 0, "exact", None, 1.0), (0, 5, "exact", None, 0.0625),
        (3, 3, "exact", None, 1.0), (12, 12, "exact", None, 1.0), (24, 0, "exact", None, 2**-23),
        (25, 0, "chi-square", 576 / 25, 1.587e-6),
        (13, 12, "chi-square", 0.0, 1.0), (20, 20, "chi-square", 0.0, 1.0),
        (5_000_000, 5_000_000, "chi-square", 0.0, 1.0), (10**6, 0, "chi-square", 999_998.000001, 0.0),
    ],
)  # fmt: skip
def test_mcnemar(worse: int, better: int, method: str, statistic: float | None, p_value: float) -> None:
    found = mcnemar(worse, better)
    assert found.method == method
    assert found.statistic == (None if statistic is None else pytest.approx(statistic, abs=1e-3))
    assert found.p_value == pytest.approx(p_value, rel=2e-3)
    assert 0 <= found.p_value <= 1


@pytest.mark.parametrize(("worse", "better"), [(a, b) for a in range(7) for b in range(7)])
def test_the_exact_test_is_all_the_ways_that_coins_can_fall(worse: int, better: int) -> None:
    pairs = worse + better
    extreme = abs(worse - better)
    falls = [abs(2 * sum(coins) - pairs) >= extreme for coins in itertools.product((0, 1), repeat=pairs)]
    assert mcnemar(worse, better) == McNemar("exact", None, sum(falls) / len(falls))


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=2, max_size=60), st.integers(1, 70))
@settings(max_examples=60)
def test_batches_do_not_matter(pairs: list[tuple[float, float]], size: int) -> None:
    a, b = [list(side) for side in zip(*pairs, strict=True)]
    found, changes = differences(a, b, size), [y - x for x, y in pairs]
    assert found.mean == pytest.approx(statistics.fmean(changes), rel=1e-9, abs=1e-9)
    assert found.stderr == pytest.approx(statistics.stdev(changes) / math.sqrt(len(pairs)), rel=1e-6, abs=1e-9)
    assert (found.better, found.worse) == (sum(c > 0 for c in changes), sum(c < 0 for c in changes))


def test_none_and_one_pair_have_no_interval() -> None:
    none, one = Differences(), differences([0.5], [0.75])
    assert (none.mean, none.stderr, none.interval(), none.bootstrap(), none.mcnemar()) == (None,) * 5
    assert (one.mean, one.stderr, one.interval(), one.bootstrap()) == (0.25, None, None, None)
    none.add(np.empty(0), np.empty(0))
    assert none.n == 0


def test_a_run_against_itself_differs_by_exactly_nothing() -> None:
    values = [0.1 * number for number in range(1000)]
    found = differences(values, values, 77)
    assert (found.mean, found.stderr, found.interval(), found.bootstrap()) == (0, 0, (0, 0), (0, 0))


def test_binary_is_only_what_is_0_or_1_on_both_sides() -> None:
    assert differences([0, 1, 1, 0], [1, 1, 0, 0]).mcnemar() == mcnemar(1, 1)
    for a, b in (([0, 1], [1, 0.5]), ([0, 2], [1, 1]), ([-1, 0], [0, 0])):
        assert differences(a, b).mcnemar() is None
        assert differences(b, a, 1).mcnemar() is None


def test_what_is_no_finite_number_counts_nowhere_and_is_counted() -> None:
    bad = [math.nan, math.inf, -math.inf]
    found = differences([*bad, 1, 0, 1, 1e308, 1], [1, 0, 1, *bad, -1e308, 0])
    assert (found.n, found.unscored, found.worse, found.mean, found.binary) == (1, 7, 1, -1, True)
    huge = differences([0, 0, 1e200], [1e200, 0, 0])
    assert (huge.stderr, huge.interval(), huge.bootstrap()) == (None, None, None), "the variance is beyond numbers"
    assert huge.mean == 0


def test_the_bootstrap_of_few_values_is_that_of_all_resamples() -> None:
    """Brute force: every one of the 5 ** 5 resamples of five values."""
    values = [-0.5, 0.0, 0.1, 0.4, 2.0]
    found = differences([0] * 5, values)
    everything = [statistics.fmean(chosen) for chosen in itertools.product(values, repeat=5)]
    assert found.bootstrap() == pytest.approx(tuple(np.percentile(everything, [2.5, 97.5])), abs=0.06)


def test_the_bootstrap_is_the_same_whatever_order_the_pairs_came_in() -> None:
    a, b = [1.0] * 400 + [0.0] * 600, [0.0] * 400 + [0.0] * 600
    assert differences(a, b, 13).bootstrap() == differences(a[::-1], b[::-1]).bootstrap()


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """Skewed binary differences of 200 pairs, true mean -0.05: both intervals, 200 experiments."""
    draw = np.random.default_rng(11)
    hits = {"t": 0, "bootstrap": 0}
    for _ in range(200):
        found = Differences()
        change = draw.choice([-1.0, 0.0, 1.0], 200, p=[0.08, 0.89, 0.03])
        found.add((change < 0).astype(float), (change > 0).astype(float))
        for name, interval in (("t", found.interval()), ("bootstrap", found.bootstrap())):
            assert interval is not None
            hits[name] += interval[0] <= -0.05 <= interval[1]
    assert all(180 <= count <= 199 for count in hits.values()), hits
