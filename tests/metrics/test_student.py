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


@pytest.mark.parametrize("degrees", [*range(1, 21), 50, 99, 100, 1000, 10**4, 10**5, 10**6, 10**9])
def test_t_is_scipys(degrees: int) -> None:
    from scipy import stats

    assert t_quantile(degrees) == pytest.approx(float(stats.t.ppf(0.975, degrees)), rel=1e-14)


def test_above_100_degrees_the_error_is_that_of_the_next_two_terms() -> None:
    """Each coefficient of 26.7.5 to its last digit: what is left is its fifth term and one in the sixth power.

    The fifth is that of Fisher and Cornish's expansion.
    """
    from scipy import stats

    x = float(stats.norm.ppf(0.975))
    fifth = (27 * x**11 + 339 * x**9 + 930 * x**7 - 1782 * x**5 - 765 * x**3 + 17955 * x) / 368_640
    for degrees in (101, 110, 130, 150):
        error = float(stats.t.ppf(0.975, degrees)) - t_quantile(degrees)
        assert 0 < error < 1e-10
        assert (error - fifth / degrees**5) * float(degrees) ** 6 == pytest.approx(0.63, abs=0.03)
