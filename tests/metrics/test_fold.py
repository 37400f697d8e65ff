"""Folds against numpy and brute force; the same bits however a table is cut."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcjobs.metrics import Fold, MeanFold, SumsFold
from hpcjobs.metrics.blocks import BlockBuffer
from hpcjobs.metrics.bootstrap import Floats, resampled_totals
from hpcjobs.metrics.builtin.accuracy import Accuracy
from hpcjobs.metrics.fold import exponential, numbers, wilson
from hpcjobs.metrics.registry import find_metric
from hpcjobs.metrics.sums import in_logarithms, within

NOTHING = {"value": None, "stderr": None, "ci95": None, "bootstrap_ci95": None, "n": 0}
SUMS = pa.list_(pa.float64())


def ratio(sums: Floats) -> float:
    """A value of two sums that is no mean."""
    return float(sums[0] / sums[1]) if sums[1] else math.nan


def ratios() -> SumsFold:
    return SumsFold(2, ratio, within(-math.inf, math.inf))


def folded(make: Callable[[], Fold], scores: Floats, sums: pa.Array | None, cuts: Sequence[int]) -> dict[str, Any]:
    """The summary of scores that come in batches cut at `cuts`."""
    fold = make()
    for start, stop in itertools.pairwise([0, *sorted(cuts), len(scores)]):
        fold.add(scores[start:stop], None if sums is None else sums.slice(start, stop - start))
    return dict(fold.summary())


def limited(make: Callable[[], MeanFold | SumsFold]) -> Callable[[], Fold]:
    """The fold as a group has it."""

    def made() -> Fold:
        fold = make()
        fold.limit()
        return fold

    return made


def test_held_rows_come_in_blocks_of_their_size() -> None:
    held, rows = BlockBuffer(2, 3), np.arange(20.0).reshape(10, 2)
    blocks = [*held.add(rows[:2]), *held.add(rows[2:9]), *held.add(rows[9:])]
    assert [block.tolist() for block in blocks] == [rows[:3].tolist(), rows[3:6].tolist(), rows[6:9].tolist()]
    assert held.rest().tolist() == rows[9:].tolist()
    assert held.rest().shape == (0, 2)


@settings(deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=50).filter(lambda values: not {*values} <= {0.0, 1.0}))
def test_a_fold_is_mean_and_standard_error(values: list[float]) -> None:
    fold = MeanFold()
    for batch in (values[:1], values[1:], []):
        fold.add(np.array([*batch, math.nan]))
    summary: dict[str, Any] = dict(fold.summary())
    assert summary["n"] == len(values)
    mean, stderr = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    assert summary["value"] == pytest.approx(mean, abs=1e-9)
    assert summary["stderr"] == pytest.approx(stderr, rel=1e-6, abs=1e-6)
    assert summary["ci95"] == pytest.approx([mean - 1.96 * stderr, mean + 1.96 * stderr], rel=1e-6, abs=1e-5)
    low, high = summary["bootstrap_ci95"]
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


def test_an_interval_stays_within_the_bounds_of_the_scores() -> None:
    scores = np.array([0.9, 1.0, 1.0, 1.0])
    low, high = folded(MeanFold, scores, None, [])["ci95"]
    assert low < 0.95
    assert high > 1.0
    assert folded(lambda: MeanFold((0.0, 1.0)), scores, None, [1])["ci95"] == [low, 1.0]
    assert folded(lambda: MeanFold((0.0, 1.0)), 1 - scores, None, [])["ci95"] == pytest.approx([0.0, 1 - low])
    wide = folded(lambda: MeanFold((-5.0, 5.0)), scores, None, [])
    assert wide["ci95"] == [low, high]
    assert folded(lambda: MeanFold((0.0, 0.5)), scores, None, [])["ci95"] == [low, high], "what was declared is wrong"


@pytest.mark.parametrize("name", ["f1", "rouge1", "rougeLsum", "exact_match", "pass@2", "majority(f1)", "acc"])
def test_metrics_that_are_shares_say_so(name: str) -> None:
    """Of one answer that is nearly right among many that are, the interval would end above 1."""
    summary = folded(find_metric(name).fold, np.array([0.9, *np.ones(9)]), None, [])
    assert summary["ci95"][1] == 1.0
    assert summary["ci95"][0] < summary["value"]


def test_a_fold_of_none_and_of_one() -> None:
    assert MeanFold().summary() == ratios().summary() == NOTHING
    one = MeanFold()
    one.add(np.array([0.5]))
    assert one.summary() == NOTHING | {"value": 0.5, "n": 1}
    sums = ratios()
    sums.add(np.array([0.5]), pa.array([[1.0, 2.0]], SUMS))
    assert sums.summary() == NOTHING | {"value": 0.5, "n": 1}


def test_what_is_beyond_numbers_is_none() -> None:
    fold = MeanFold()
    fold.add(np.array([1e200, -1e200, 3.0]))
    assert fold.summary()["stderr"] is None
    assert fold.summary()["ci95"] is None
    sums = ratios()
    sums.add(np.zeros(2), pa.array([[1.0, 0.0], [2.0, 0.0]], SUMS))
    assert sums.summary() == NOTHING | {"n": 2}


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        # Newcombe, Two-sided confidence intervals for the single proportion, Statistics in Medicine 17, 1998, table I,
        # method 3 (score)
        (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718),
    ],
)  # fmt: skip
def test_wilsons_interval_is_as_published(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right / n, n) == pytest.approx([low, high], abs=6e-5)
    fold = MeanFold()
    fold.add(np.array([1.0] * right + [0.0] * (n - right)))
    assert fold.summary()["ci95"] == wilson(right / n, n)


def test_all_right_and_all_wrong_stay_within_0_and_1() -> None:
    for value in (0.0, 1.0):
        fold = MeanFold()
        fold.add(np.full(50, value))
        summary: dict[str, Any] = dict(fold.summary())
        assert (summary["value"], summary["stderr"], summary["bootstrap_ci95"]) == (value, 0.0, [value, value])
        low, high = summary["ci95"]
        assert 0 <= low < high <= 1
        assert high - low == pytest.approx(0.0714, abs=1e-4)


@settings(deadline=None, max_examples=12)
@given(st.lists(st.integers(0, 5000), max_size=6), st.booleans(), st.integers(0, 3))
def test_any_cut_gives_the_same_mean_to_the_bit(cuts: list[int], binary: bool, seed: int) -> None:
    draw = np.random.default_rng(seed)
    scores = (draw.random(5000) < 0.3).astype(float) if binary else draw.normal(size=5000)
    scores[draw.random(5000) < 0.01] = np.nan
    right = pa.array([[float(n)] if n < 5 else None for n in draw.integers(0, 6, 5000)], SUMS)
    for make in (Accuracy().fold,) if binary else (MeanFold, limited(MeanFold)):
        whole = folded(make, scores, right, [])
        assert folded(make, scores, right, cuts) == whole
        assert whole["n"] == int((~np.isnan(scores)).sum())


@settings(deadline=None, max_examples=8)
@given(st.lists(st.integers(0, 9000), max_size=6), st.integers(0, 3))
def test_any_cut_gives_the_same_sums_to_the_bit(cuts: list[int], seed: int) -> None:
    draw = np.random.default_rng(seed)
    rows = draw.normal(size=(9000, 2)) + 10
    there = draw.random(9000) > 0.01
    sums = pa.array([row if kept else None for row, kept in zip(rows.tolist(), there, strict=True)], SUMS)
    for make in (ratios, limited(ratios)):
        whole = folded(make, np.zeros(9000), sums, [])
        assert folded(make, np.zeros(9000), sums, cuts) == whole
        assert whole["n"] == int(there.sum())
        totals = rows[there].sum(axis=0)
        assert whole["value"] == pytest.approx(totals[0] / totals[1], rel=1e-12)


def test_the_bootstrap_of_sums_is_that_of_all_resamples() -> None:
    """Brute force: every one of the 5 ** 5 resamples of five samples."""
    rows = np.array([[1.0, 2.0], [0.0, 1.0], [5.0, 6.0], [2.0, 8.0], [3.0, 3.0]])
    everything = [ratio(np.sum(chosen, axis=0)) for chosen in itertools.product(rows, repeat=5)]
    found = folded(ratios, np.zeros(5), pa.array(rows.tolist(), SUMS), [2])
    assert found["value"] == pytest.approx(11 / 20)
    assert found["stderr"] == pytest.approx(np.std(everything), rel=0.08)
    assert found["bootstrap_ci95"] == pytest.approx(np.percentile(everything, [2.5, 97.5]), abs=0.05)
    assert found["ci95"] == pytest.approx([11 / 20 - 1.96 * found["stderr"], 11 / 20 + 1.96 * found["stderr"]])


@pytest.mark.parametrize("limit", [False, True])
def test_blocks_of_neighbours_tell_the_error_of_many_samples(limit: bool) -> None:
    """Ratio of sums of 100,000 independent pairs: the error by the delta method."""
    draw, n = np.random.default_rng(4), 100_000
    rows = np.column_stack([draw.exponential(2.0, n), draw.exponential(5.0, n)])
    flat = pa.ListArray.from_arrays(np.arange(n + 1) * 2, pa.array(rows.ravel()))
    found = folded(limited(ratios) if limit else ratios, np.zeros(n), flat, range(0, n, 7777))
    means, covariance = rows.mean(axis=0), np.cov(rows.T)
    slope = np.array([1 / means[1], -means[0] / means[1] ** 2])
    assert found["value"] == pytest.approx(means[0] / means[1], rel=1e-12)
    assert found["stderr"] == pytest.approx(math.sqrt(slope @ covariance @ slope / n), rel=0.2 if limit else 0.1)


def blocks(rows: Floats, most: int) -> Floats:
    """Sums of neighbours, of as many as the least power of two that leaves at most `most` of them."""
    size = 1
    while math.ceil(len(rows) / size) > most:
        size *= 2
    return np.array([rows[start : start + size].sum(axis=0) for start in range(0, len(rows), size)])


@pytest.mark.parametrize("n", [*range(1, 20), 31, 32, 33, 63, 64, 65, 100])
@pytest.mark.parametrize("limit", [False, True])
def test_beyond_the_most_blocks_neighbours_are_joined_in_pairs(
    monkeypatch: pytest.MonkeyPatch, n: int, limit: bool
) -> None:
    monkeypatch.setattr("hpcjobs.metrics.sums.MOST_BLOCKS", 8)
    monkeypatch.setattr("hpcjobs.metrics.sums._FEW_BLOCKS", 4)
    rows = np.random.default_rng(n).integers(1, 9, (n, 2)).astype(np.float64)
    made = folded(limited(ratios) if limit else ratios, np.zeros(n), pa.array(rows.tolist(), SUMS), range(0, n, 3))
    one = blocks(rows, 4 if limit else 8)
    assert (made["value"], made["n"]) == (ratio(rows.sum(axis=0)), n)
    if n == 1:
        assert (made["stderr"], made["bootstrap_ci95"]) == (None, None)
        return
    values = [ratio(total) for total in resampled_totals(one)]
    assert made["stderr"] == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    assert made["bootstrap_ci95"] == pytest.approx(np.percentile(values, [2.5, 97.5]), rel=1e-12)


@pytest.mark.parametrize(("limit", "most"), [(False, 8192), (True, 256)])
def test_as_many_blocks_as_said_are_kept(limit: bool, most: int) -> None:
    for n, count in ((most, most), (most + 1, most // 2 + 1)):
        fold = ratios()
        if limit:
            fold.limit()
        fold.add(np.zeros(n), pa.array(np.ones((n, 2)).tolist(), SUMS))
        fold.summary()
        assert len(fold._blocks.sums) == count


def test_a_group_keeps_64_values_and_all_others_4096() -> None:
    for most in (4096, 64):
        fold = MeanFold()
        if most == 64:
            fold.limit()
        fold.add(np.arange(5000.0))
        fold.summary()
        assert len(fold._histogram.values) == most


def test_blocks_of_scores_are_joined_to_the_mean_and_error_of_all() -> None:
    """Several blocks of a group's 1024 scores, of other means and of another number of the last."""
    scores = np.random.default_rng(8).normal(size=3500) + np.arange(3500) // 500
    found = folded(limited(MeanFold), scores, None, [700, 2500])
    assert found["value"] == pytest.approx(scores.mean(), rel=1e-12)
    assert found["stderr"] == pytest.approx(scores.std(ddof=1) / math.sqrt(3500), rel=1e-12)
    two = folded(MeanFold, np.array([1.0, 3.0]), None, [])
    assert (two["value"], two["stderr"]) == (2.0, pytest.approx(1.0))


@pytest.mark.parametrize(
    ("scores", "binary"),
    [([0, 1], True), ([1, 1], True), ([0, 0], True), ([0, 0.5, 1], False), ([1, 1.25], False), ([0, -1], False)],
)
def test_a_mean_is_of_shares_where_every_score_is_0_or_1(scores: list[float], binary: bool) -> None:
    fold = MeanFold()
    fold.add(np.array(scores, np.float64))
    ends = fold.summary()["ci95"]
    assert fold.binary is binary
    assert (ends == wilson(float(np.mean(scores)), len(scores))) is binary


def test_few_values_are_enough_for_a_group() -> None:
    scores = np.random.default_rng(5).beta(2, 3, 20_000)
    whole, group = (folded(make, scores, None, []) for make in (MeanFold, limited(MeanFold)))
    assert (group["value"], group["stderr"], group["n"]) == pytest.approx((whole["value"], whole["stderr"], whole["n"]))
    assert group["bootstrap_ci95"] == pytest.approx(whole["ci95"], abs=0.3 * whole["stderr"])


def test_lists_become_rows_and_none_becomes_nan() -> None:
    lists = pa.array([[1.0, 2.0], None, [3.0, 4.0], [None, 5.0]], SUMS)
    assert numbers(lists.slice(1), 2).tolist()[1] == [3.0, 4.0]
    assert np.isnan(numbers(lists, 2)).tolist() == [[False, False], [True, True], [False, False], [True, False]]
    with pytest.raises(ValueError, match="reshape"):
        numbers(pa.array([[1.0]], SUMS), 2)


def test_an_interval_stays_where_values_can_be() -> None:
    values = np.array([1.0, 4.0, 0.5, 9.0])
    half = 1.96 * float(values.std(ddof=1))
    assert within(0.0, 100.0)(2.0, values) == [0.0, pytest.approx(2 + half)]
    assert within(0.0, 5.0)(2.0, values) == [0.0, 5.0]
    factor = math.exp(1.96 * float(np.log(values).std(ddof=1)))
    assert in_logarithms(2.0, values) == pytest.approx([2 / factor, 2 * factor])
    assert in_logarithms(0.0, values) is None
    for value, others in ((-0.5, [1.0, 2.0]), (2.0, [1.0, 0.0]), (2.0, [1.0, -0.5])):
        with np.errstate(all="raise"):
            assert in_logarithms(value, np.array(others)) is None
    assert in_logarithms(0.5, np.array([0.25, 0.5])) is not None
    with np.errstate(over="ignore", invalid="ignore"):
        assert within(0.0, 5.0)(1.0, np.array([1e200, -1e200])) is None


def test_two_resampled_values_are_the_least_for_an_error() -> None:
    fold, of = ratios(), pytest.approx
    assert fold.errors(0.5, np.array([[1.0, 2.0], [1.0, 0.0]])) == (None, None, None)
    stderr, ends, resampled = fold.errors(0.5, np.array([[1.0, 2.0], [1.0, 0.0], [3.0, 4.0]]))
    assert stderr == of(0.25 / math.sqrt(2))
    assert stderr is not None
    assert ends == of([0.5 - 1.96 * stderr, 0.5 + 1.96 * stderr])
    assert resampled == of([0.5 + 0.025 * 0.25, 0.75 - 0.025 * 0.25])


def test_what_is_beyond_a_double_is_infinite() -> None:
    assert (exponential(710.0), exponential(0.0)) == (math.inf, 1.0)


def test_samples_without_statistics_are_not_counted() -> None:
    fold = ratios()
    fold.add(np.zeros(3))
    fold.add(np.zeros(2), pa.array([[1.0, 4.0], [1.0, math.inf]], SUMS))
    assert (fold.summary()["n"], fold.summary()["value"]) == (1, 0.25)
