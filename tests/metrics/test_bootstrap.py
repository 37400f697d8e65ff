"""Resamples of histograms and of sums, against brute force and textbook variances."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcjobs.metrics.bootstrap import Histogram, percentiles, resampled_totals


def test_the_bootstrap_of_a_binary_metric_is_multinomial() -> None:
    """Each resample's mean has the variance p(1 - p) / n; and they are the same ones each time."""
    histogram = Histogram()
    histogram.add(np.array([1.0] * 400 + [0.0] * 600))
    means = histogram.means(20_000)
    assert means.mean() == pytest.approx(0.4, abs=5e-4)
    assert means.std() == pytest.approx(math.sqrt(0.4 * 0.6 / 1000), rel=0.02)
    assert (means == histogram.means(20_000)).all()
    assert histogram.interval() == percentiles(histogram.means())


def test_a_histogram_joins_what_loses_least_and_keep_the_mean() -> None:
    draw = np.random.default_rng(3)
    values = np.concatenate([draw.normal(size=40_000), [1e4, -3e3]])
    histogram = Histogram()
    for part in np.array_split(values, 9):
        histogram.add(part)
    assert len(histogram.values) == 4096
    assert histogram.counts.sum() == len(values)
    assert histogram.counts @ histogram.values == pytest.approx(values.sum(), rel=1e-9)
    assert {1e4, -3e3} <= set(histogram.values), "outliers stand alone"
    middle = np.abs(histogram.values) < 100
    kept = histogram.counts[middle] @ histogram.values[middle] ** 2 / (values[np.abs(values) < 100] ** 2).sum()
    assert 1 - 1e-4 < kept <= 1 + 1e-12
    exact = Histogram()
    exact.add(values[:4096])
    assert sorted(exact.values) == sorted(values[:4096])


@settings(max_examples=30)
@given(st.integers(4097, 9000))
def test_a_histogram_never_holds_more_than_the_most(count: int) -> None:
    histogram = Histogram()
    histogram.add(np.square(np.arange(count, dtype=np.float64)))
    assert len(histogram.values) == 4096
    assert histogram.counts.sum() == count


def test_totals_are_those_of_all_resamples() -> None:
    """Brute force: each of the 4 ** 4 resamples of four rows; both columns are drawn together."""
    rows = np.array([[1.0, 10.0], [2.0, 0.0], [4.0, 5.0], [9.0, 1.0]])
    everything = np.array([np.sum(chosen, axis=0) for chosen in itertools.product(rows, repeat=4)])
    totals = resampled_totals(rows, 50_000)
    assert totals.mean(axis=0) == pytest.approx(everything.mean(axis=0), rel=0.01)
    assert np.cov(totals.T) == pytest.approx(np.cov(everything.T), rel=0.05)
    assert {tuple(row) for row in totals} <= {tuple(row) for row in everything}
    assert (resampled_totals(rows) == resampled_totals(rows)).all()


def test_totals_of_many_rows_are_drawn_in_parts() -> None:
    rows = np.ones((3000, 1))
    assert resampled_totals(rows, 1000).tolist() == [[3000.0]] * 1000


def test_few_values_are_kept_where_few_are_asked_for() -> None:
    histogram = Histogram(most=16)
    histogram.add(np.arange(1000.0))
    assert len(histogram.values) == 16
    assert histogram.counts @ histogram.values / 1000 == pytest.approx(499.5)


def test_anybody_can_draw_the_same_resamples() -> None:
    """1000 of them, from the seed 0: a run that is merged again, now or in a year, has the same interval."""
    scores = np.array([0.0, 0.25, 0.25, 1.0, 3.0])
    histogram = Histogram()
    histogram.add(scores)
    draw = np.random.default_rng(0)
    means = draw.multinomial(5, [0.2, 0.4, 0.2, 0.2], 1000) @ np.array([0.0, 0.25, 1.0, 3.0]) / 5
    assert histogram.interval() == pytest.approx(np.percentile(means, [2.5, 97.5]), rel=1e-12)
    rows = np.column_stack([scores, np.ones(5)])
    picked = np.random.default_rng(0).integers(0, 5, (1000, 5))
    assert resampled_totals(rows) == pytest.approx(rows[picked].sum(axis=1), rel=1e-12)


@pytest.mark.parametrize("drawn", [1, 7, 1000, 1 << 20])
def test_how_many_are_drawn_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch, drawn: int) -> None:
    histogram, rows = Histogram(), np.arange(60.0).reshape(30, 2)
    histogram.add(np.arange(30.0))
    means, totals = histogram.means(), resampled_totals(rows)
    monkeypatch.setattr("hpcjobs.metrics.bootstrap._DRAWN", drawn)
    assert len(means) == len(totals) == 1000
    assert histogram.means() == pytest.approx(means, rel=1e-12)
    assert resampled_totals(rows) == pytest.approx(totals, rel=1e-12)


def joined(values: list[float], counts: list[float], most: int) -> tuple[list[float], list[float]]:
    """Histogram's rule, pair by pair: half of the pairs of neighbours at most, those that lose the least first."""
    while len(values) > most:
        pairs = range(0, len(values) - 1, 2)
        loss = {at: (values[at + 1] - values[at]) ** 2 / (1 / counts[at] + 1 / counts[at + 1]) for at in pairs}
        least = sorted(pairs, key=loss.__getitem__)
        chosen = {*least[: min(math.ceil(len(pairs) / 2), len(values) - most)]}
        made = []
        for at, one in enumerate(zip(values, counts, strict=True)):
            if at in chosen:
                both = counts[at] + counts[at + 1]
                made.append(((values[at] * counts[at] + values[at + 1] * counts[at + 1]) / both, both))
            elif at - 1 not in chosen:
                made.append(one)
        values, counts = [value for value, _ in made], [count for _, count in made]
    return values, counts


@pytest.mark.parametrize(("count", "most"), [(5, 4), (8, 7), (9, 4), (11, 9), (40, 7), (41, 16), (3, 1)])
def test_the_values_that_are_joined_are_those_that_lose_least(count: int, most: int) -> None:
    draw = np.random.default_rng(count)
    values, counts = np.sort(draw.exponential(size=count)), draw.integers(1, 30, count)
    histogram = Histogram(most=most)
    histogram.values, histogram.counts = values.copy(), counts.astype(np.float64)
    histogram.add(np.empty(0))
    expected = joined(values.tolist(), [float(one) for one in counts], most)
    assert (len(histogram.values), histogram.counts.tolist()) == (most, expected[1])
    assert histogram.values == pytest.approx(expected[0], rel=1e-12)


def test_a_new_histogram_is_empty_and_counts_each_value() -> None:
    histogram = Histogram()
    assert (len(histogram.values), len(histogram.counts)) == (0, 0)
    for part in ([2.0, 1.0], [], [2.0, 2.0]):
        histogram.add(np.array(part))
    assert (histogram.values.tolist(), histogram.counts.tolist()) == ([1.0, 2.0], [1.0, 3.0])
