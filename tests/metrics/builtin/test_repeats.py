"""pass@k against brute force, majority by hand, and their names."""

from __future__ import annotations

import itertools
import json
import math
from statistics import fmean
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcjobs.errors import ConfigError
from hpcjobs.merge.results import schema_of
from hpcjobs.metrics import Score, find_metric, find_metrics
from hpcjobs.metrics.builtin.repeats import Majority, elected, pass_at_k
from hpcjobs.requests import Completion, Row, Target


def answers(*texts: str) -> Completion:
    return Completion(index=0, text=texts[0], finish_reason="stop", texts=texts)


@given(st.integers(1, 8), st.integers(0, 8), st.integers(1, 8))
def test_pass_at_k_is_the_share_of_draws_with_a_right_answer(n: int, right: int, k: int) -> None:
    right, k = min(right, n), min(k, n)
    draws = itertools.combinations([True] * right + [False] * (n - right), k)
    assert pass_at_k(n, right, k) == pytest.approx(fmean(any(draw) for draw in draws))


def test_pass_at_k_is_that_of_the_paper() -> None:
    """Chen et al., figure 3: 1 - prod(1 - k / arange(n - c + 1, n + 1))."""
    import numpy as np

    for right in (0, 1, 7, 150):
        theirs = 1.0 if 200 - right < 100 else 1 - np.prod(1 - 100 / np.arange(200 - right + 1, 201))
        assert pass_at_k(200, right, 100) == pytest.approx(float(theirs), abs=1e-12)
    with pytest.raises(ValueError, match="pass@3 of 2 answers"):
        pass_at_k(2, 1, 3)


def test_pass_at_k_of_answers() -> None:
    four = answers("Paris", "Lyon", " Paris ", "Nice")
    assert find_metric("pass@1").judge(four, "Paris", {}).value == pytest.approx(0.5)
    assert find_metric("pass@2(exact_match)").judge(four, ["Paris"], {}).value == pytest.approx(1 - 1 / 6)
    assert find_metric("pass@4").judge(four, "Nizza", {}).value == 0
    assert find_metric("pass@1(number_match)").judge(answers("so 7", "8"), "#### 7.0", {}).value == 0.5
    json_valid = find_metric("pass@1(json_valid)")
    assert (json_valid.judge(answers("{}", "{"), None, {}).value, json_valid.needs_target) == (0.5, False)


@pytest.mark.parametrize(
    ("name", "texts", "target", "value"),
    [
        ("majority", ["b", "a", "a"], "a", 1), ("majority", ["b", "a", "a"], "b", 0),
        ("majority", ["b", "a"], "b", 1), ("majority", ["a", "b", "b", "a"], "a", 1),
        ("majority", ["", "", "a"], "a", 1), ("majority", ["", ""], "", 1), ("majority", [" a", "b", "a "], "a", 1),
        # each answer another chain of thought, the same number
        ("majority(number_match)", ["x 3", "2 + 2 = 4", "so #### 4.0", "3"], "3", 1),
        ("majority(number_match)", ["x 3", "2 + 2 = 4", "so #### 4.0", "4"], "4", 1),
        ("majority(number_match)", ["no idea", "none", "nothing", "5"], "5", 1),
        ("majority(f1)", ["The cat!", "a dog", "cat"], "cat", 1),
    ],
)  # fmt: skip
def test_majority(name: str, texts: list[str], target: str, value: float) -> None:
    assert find_metric(name).judge(answers(*texts), target, {}).value == value


def test_the_first_of_those_who_voted_so_is_elected() -> None:
    assert elected(["x", "one", "uno"], [None, 1, 1]) == "one"
    assert elected(["x", "y"], [None, None]) == "x"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pass@0", "no metric 'pass@0' (did you mean 'pass@k'?)"), ("pass@k", "such as pass@1"),
        ("pass@5(exact_mach)", "no metric 'exact_mach' (did you mean 'exact_match'?)"),
        ("majorty", "(did you mean 'majority'?)"), ("pass@5()", "no metric ''"),
        ("pass@5(acc)", "'pass@5(acc)': acc does not judge one answer in words"),
        ("majority(majority)", "majority does not judge one answer in words"),
        ("pass@2(f1)", "'pass@2(f1)': f1 does not say right or wrong, 1 or 0"),
    ],
)  # fmt: skip
def test_names_that_mean_nothing(name: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        find_metric(name)
    assert words in str(error.value)


class Distance:
    """A user's own, of which less is better."""

    lower_is_better = True
    name = "distance"

    def __init__(self, bounds: tuple[float, float] | None = None) -> None:
        self.bounds = bounds

    def score(self, completion: str, target: Target, row: Row) -> float:
        return abs(float(completion) - float(str(target)))


def test_an_error_scores_for_the_majority_what_it_scores_for_its_metric() -> None:
    for bounds, worst in (((0.0, 5.0), 5.0), (None, math.nan)):
        base: Any = Distance(bounds)
        metric = Majority("majority(distance)", base)
        assert (metric.lower_is_better, metric.normalized, metric.needs_target) == (True, True, True)
        assert metric.failed("1").value == pytest.approx(worst, nan_ok=True)
        assert metric.judge(answers("3", "1.5", "1.5 "), "1", {}).value == 0.5
    assert not find_metric("majority(f1)").lower_is_better
    assert find_metric("majority(f1)").failed("1") == find_metric("pass@2").failed("1") == Score(0.0)


def test_names_with_parentheses_are_columns_and_keys() -> None:
    names = ["pass@1", "pass@5(exact_match)", "majority(number_match)"]
    metrics = find_metrics(names)
    assert [metric.name for metric in metrics] == names
    kind = schema_of(metrics, pa.schema([])).field("scores").type
    assert [field.name for field in kind] == names
    row = dict.fromkeys(names, 0.5)
    assert pa.array([row], kind).to_pylist() == [json.loads(json.dumps(row))]
