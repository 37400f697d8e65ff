"""The t distribution against the tables."""

from __future__ import annotations

import itertools
import math

import pytest

from hpcjobs.metrics.student import t_quantile


@pytest.mark.parametrize(
    ("degrees", "value"),
    [
        # Fisher and Yates, Statistical Tables, table III, 5% (two-sided)
        (1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (10, 2.228), (20, 2.086),
        (30, 2.042), (60, 2.000), (120, 1.980),
    ],
)  # fmt: skip
def test_t_is_as_in_the_tables(degrees: int, value: float) -> None:
    assert t_quantile(degrees) == pytest.approx(value, abs=5.01e-4)


def test_t_has_no_step_where_the_method_changes_and_goes_to_the_normal() -> None:
    values = [t_quantile(degrees) for degrees in range(1, 300)]
    steps = [later - earlier for earlier, later in itertools.pairwise(values)]
    assert all(step < 0 for step in steps)
    assert all(later / earlier < 1 for earlier, later in itertools.pairwise(steps)), "they shrink, also at 100"
    assert t_quantile(10**7) == pytest.approx(1.959964, abs=1e-6)
    assert t_quantile(2) == pytest.approx(math.sqrt(2 * 0.95**2 / (1 - 0.95**2)), rel=1e-12), "closed form"


@pytest.mark.parametrize("degrees", [1, 2, 3, 10, 99, 100, 101, 1000, 10**6])
def test_t_is_scipys(degrees: int) -> None:
    from scipy import stats

    assert t_quantile(degrees) == pytest.approx(float(stats.t.ppf(0.975, degrees)), rel=1e-9)
