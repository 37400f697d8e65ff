"""Gates: what they are written as, and what they let through."""

from __future__ import annotations

import re

import numpy as np
import pytest

from hpcjobs.compare.gates import Gate, check_gates, gates_exit_code, judge, judge_value, parse_gates
from hpcjobs.compare.statistics import Differences
from hpcjobs.errors import UsageError


def fall(a: int, b: int, n: int = 100, step: float = 1.0) -> Differences:
    """`a` of n samples have the score `step` in A, `b` of them in B; the others have 0."""
    found, places = Differences(), np.arange(n)
    found.add(np.where(places < a, step, 0.0), np.where(places < b, step, 0.0))
    return found


def test_gates_are_metric_and_number() -> None:
    assert parse_gates([]) == {}
    words = ["exact_match=0.01", "f1=1e-3", "odd=name=0", "rouge.l=5"]
    assert parse_gates(words) == {"exact_match": 0.01, "f1": 0.001, "odd=name": 0.0, "rouge.l": 5.0}


@pytest.mark.parametrize(
    "word", ["f1", "f1=", "=0.1", "", "=", "f1=x", "f1=-0.1", "f1=nan", "f1=inf", "f1=1%", "f1:0.1"]
)
def test_what_is_no_gate_is_wrong_usage(word: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--gate {word!r}") + ".*such as exact_match=0.01"):
        parse_gates([word])


def test_a_metric_has_one_gate_and_is_in_both_runs() -> None:
    with pytest.raises(UsageError, match=r"'f1' has a gate already, 0\.1"):
        parse_gates(["f1=0.1", "f1=0.2"])
    check_gates({"f1": 0.1}, ["f1", "contains"])
    with pytest.raises(
        UsageError, match=r"no metric 'contain' in common \(did you mean 'contains'\?\).*: f1, contains"
    ):
        check_gates({"contain": 0.1}, ["f1", "contains"])


@pytest.mark.parametrize(
    ("found", "limit", "passed"),
    [
        (fall(75, 74), 0.01, True),  # 0.75 - 0.74 is not more than 0.01, whatever floats say
        (fall(75, 73), 0.01, False), (fall(75, 74), 0.0, False), (fall(75, 75), 0.0, True), (fall(75, 76), 0.0, True),
        (fall(75, 74), 0.00999, False), (fall(100, 0), 1.0, True), (fall(3, 2, 3), 1 / 3, True),
        (fall(75, 74, step=1000.0), 10.0, True), (fall(75, 74, step=1000.0), 9.99, False),
        (fall(10**6, 10**6 - 1, 10**6), 0.0, False),
    ],
)  # fmt: skip
def test_a_gate_passes_up_to_its_limit(found: Differences, limit: float, passed: bool) -> None:
    [gate] = judge({"m": limit}, {"m": found}, "")
    assert gate.passed is passed, gate
    assert gate.drop == pytest.approx((found.a - found.b) / found.n)


def test_what_cannot_be_decided_is_not_passed() -> None:
    [gate] = judge({"m": 0.5}, {"m": fall(5, 4)}, "incomplete: B")
    assert (gate.passed, gate.why) == (None, "incomplete: B")
    [gate] = judge({"m": 0.5}, {"m": Differences()}, "")
    assert (gate.passed, gate.drop) == (None, None)


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        (Gate(metric="m", limit=0.01, drop=0.03125, passed=False), "REGRESSION: B is lower by 0.03125, more than 0.01"),
        (Gate(metric="m", limit=0.01, drop=0.01, passed=True), "passed: B is lower by 0.01, not more than 0.01"),
        (Gate(metric="m", limit=0.01, drop=0.0, passed=True), "passed: B is not lower"),
        (Gate(metric="m", limit=0.01, drop=-0.5, passed=True), "passed: B is not lower"),
        (Gate(metric="m", limit=0.01, drop=0.5, passed=None, why="because"), "NOT DECIDED: because"),
    ],
)
def test_a_gate_is_told_with_its_numbers(gate: Gate, said: str) -> None:
    assert gate.line() == f"gate    m: {said}"


def test_a_perplexity_may_not_rise() -> None:
    risen, fallen = Differences(), Differences()
    risen.add(np.array([4.0, 6.0]), np.array([5.0, 7.0]))
    fallen.add(np.array([5.0]), np.array([4.0]))
    [strict] = judge({"perplexity": 0.5}, {"perplexity": risen}, "")
    assert (strict.passed, strict.drop) == (False, 1.0)
    assert strict.line() == "gate    perplexity: REGRESSION: B is higher by 1, more than 0.5"
    [better] = judge({"word_perplexity,none": 0.0}, {"word_perplexity,none": fallen}, "")
    assert better.passed
    assert "not higher" in better.line()


@pytest.mark.parametrize(
    ("b", "worse", "limit", "drop", "passed"),
    [
        (2.5, "higher", 0.5, 0.5, True), (2.5, "higher", 0.4, 0.5, False), (1.0, "higher", 0.0, -1.0, True),
        (1.5, "lower", 0.5, 0.5, True), (1.5, "lower", 0.4, 0.5, False), (9.0, "lower", 0.0, -7.0, True),
        (2.0, "lower", 0.0, 0.0, True),
    ],
)  # fmt: skip
def test_a_value_of_which_each_run_has_one(b: float, worse: str, limit: float, drop: float, passed: bool) -> None:
    gate = judge_value("loss", limit, 2.0, b, worse, "")
    assert (gate.drop, gate.passed, gate.worse) == (drop, passed, worse)
    assert judge_value("loss", limit, 2.0, b, worse, "incomplete: A") == Gate(
        metric="loss", limit=limit, drop=drop, passed=None, why="incomplete: A", worse=worse
    )


def test_a_regression_outweighs_what_is_not_decided() -> None:
    passed, failed, open_ = (Gate(metric="m", limit=0.1, drop=0.0, passed=judged) for judged in (True, False, None))
    assert [gates_exit_code(gates) for gates in ([], [passed], [passed, open_], [open_, failed])] == [0, 0, 3, 1]
