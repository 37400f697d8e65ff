"""Numbers in texts beside those of tests/reference/number_answers.py: targets, JSON's floats, degenerate texts."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcjobs.metrics import find_metric
from hpcjobs.metrics.number_notation import plain_digits
from hpcjobs.metrics.numbers import MOST_DIGITS, NumberReader

READER = NumberReader()


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e80, max_value=1e80))
def test_a_float_of_json_is_read_back_as_it_is(number: float) -> None:
    assert READER.target(str(number)) == READER.answer(f"It is {number}.") == Fraction(str(number))


@given(st.integers(-(10**30), 10**30))
def test_whole_numbers_with_and_without_thousands(number: int) -> None:
    assert READER.target(str(number)) == READER.answer(f"**{number:,}**") == READER.answer(f"{number:_}") == number


@pytest.mark.parametrize(
    ("target", "value"),
    [
        ("18", 18), ("-3.50", Fraction(-7, 2)), ("1/2", Fraction(1, 2)), ("$1,200", 1200), ("18 apples", 18),
        ("2 + 2 = 4\n#### 4", 4), ("so \\boxed{\\frac{1}{2}} of 3", Fraction(1, 2)), ("3.0e-7", Fraction(3, 10**7)),
        ("3:30", None), ("2024-05-01", None), ("1/5/2024", None), ("1,2,3", None), ("1,2", None), ("3 to 4", None),
        ("none", None), ("", None), ("#### none", None), ("2\\pi", None), ("1.2.3", None), ("1/0", None),
    ],
)  # fmt: skip
def test_a_target_is_one_number_or_none(target: str, value: Fraction | int | None) -> None:
    assert READER.target(target) == value
    refused = find_metric("number_match").refuse(target)
    assert refused == ("" if value is not None else f"{target!r} is not one number")


def test_one_number_among_several_targets_is_enough() -> None:
    metric = find_metric("pass@2(number_match)")
    assert [metric.refuse(target) for target in (["x", "3"], [], None)] == ["", "", ""]
    assert metric.refuse(["x", "3:30"]) == "['x', '3:30'] is not one number"
    assert find_metric("exact_match").refuse("x") == ""


def test_with_a_decimal_comma() -> None:
    reader = NumberReader(decimal_comma=True)
    for text, value in (("1.234,5", "1234.5"), ("3,5", "3.5"), ("1.000.000", "1000000"), ("Es sind 3.", "3")):
        assert reader.answer(text) == Fraction(value)
    assert [reader.target(text) for text in ("3.5", "3,5", "1.234")] == [Fraction(7, 2), Fraction(7, 2), 1234]
    assert reader.answer("3.5") is None
    assert find_metric("number_match(decimal=comma)").score("Also 3,5 Kilo.", "3.5", {}) == 1


@pytest.mark.parametrize(
    "text",
    [
        "9" * (MOST_DIGITS + 1),
        "10^9999",
        "0^-1",
        "1e9999",
        "1,2," * 9999,
        "\\boxed{" * 3000,
        "\\boxed{}",
        "-" * 9999,
        "1:2",
    ],
)
def test_what_a_model_repeats_for_ever_is_no_number(text: str) -> None:
    assert READER.answer(text) is None
    assert READER.target(text) is None


def test_the_longest_numbers() -> None:
    assert MOST_DIGITS == 400
    for text, value in (("9" * 400, 10**400 - 1), ("1e400", 10**400), ("1e401", None), ("2^800", 2**800),
                        ("2^801", None), ("0^0", 1), ("0^1", 0), ("3^-1", Fraction(1, 3))):  # fmt: skip
        assert READER.answer(text) == value


def test_signs_are_those_of_the_whole_number() -> None:
    for text, value in (("-3/4", Fraction(-3, 4)), ("-2e3", -2000), ("-1 3/4", Fraction(-7, 4)), ("-2 × 10^2", -200),
                        ("-3^2", -9), ("2 1/4", Fraction(9, 4)), ("1 1/0", None)):  # fmt: skip
        assert READER.answer(text) == value


def test_a_box_is_closed_by_its_own_brace() -> None:
    for text, value in (("\\boxed{3} and {4}", 3), ("x} \\boxed{3}", 3), ("\\boxed{1 + 2 = 2 + 1 = 3}", 3),
                        ("{5} \\fbox{1} \\boxed{2{}}", 2), ("\\boxed{-7}.", -7)):  # fmt: skip
        assert READER.answer(text) == value


def test_full_width_letters_have_ends() -> None:
    assert plain_digits("\uff01\uff15\uff5e") == "!5~"
    assert plain_digits("\uff00\uff5f") == "\uff00\uff5f"


def test_a_long_target_is_told_in_part() -> None:
    assert find_metric("number_match").refuse("x" * 300) == "'" + "x" * 199 + " is not one number"


def test_the_mark_of_a_heading_is_no_answer() -> None:
    assert READER.answer("#### 1. Add\n#### 2) Divide\nIt is 7") == 7
    assert READER.answer("#### 1.\nIt is 7") == 1
    assert READER.answer("#### none, so 4") == 4
    assert READER.answer("\\boxed{\\boxed{3}} or \\boxed{4") == 3
