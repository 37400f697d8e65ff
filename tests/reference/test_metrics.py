"""Metrics against lm_eval, sacrebleu, rouge_score, scipy and others: a short form of tests/reference/differences.py."""

from __future__ import annotations

import re

import pytest

from hpcjobs.metrics import BUILT_IN, OVER_REPEATS
from tests.reference.differences import PAGE, Row, table
from tests.reference.number_answers import JUDGES, Case, cases, verdicts
from tests.reference.number_answers import table as number_table

LARGEST = 1e-9


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """The table of 200 pairs."""
    return list(table(200))


def test_each_metric_is_that_of_the_program_it_follows(rows: list[Row]) -> None:
    assert [row for row in rows if not row.largest <= LARGEST] == []


def test_the_values_that_are_compared_are_of_both_kinds(rows: list[Row]) -> None:
    assert [row for row in rows if row.nonzero < row.values / 10] == [], "a metric that is always 0 would pass"


def test_every_metric_is_in_the_table_and_the_page_has_its_rows(rows: list[Row]) -> None:
    named = {"number_match"} | {name for row in rows for name in re.findall(r"`([\w@]+)`", row.metric)}
    assert {*BUILT_IN, *OVER_REPEATS} <= named
    page = PAGE.read_text(encoding="utf-8")
    assert [row for row in rows if f"| {row.metric} | {row.reference} |" not in page] == []


@pytest.fixture(scope="module")
def answers() -> dict[Case, dict[str, bool]]:
    """Who is right about each answer with a number."""
    return verdicts(list(JUDGES))


def test_number_match_is_right_about_every_answer(answers: dict[Case, dict[str, bool]]) -> None:
    assert len(answers) > 200
    assert [case for case, right in answers.items() if not right["number_match"]] == []


def test_the_page_has_the_table_of_who_is_right(answers: dict[Case, dict[str, bool]]) -> None:
    assert number_table(answers) in PAGE.read_text(encoding="utf-8")


def test_many_answers_are_wrong_so_that_always_right_is_no_way_out() -> None:
    wrong = [case for case in cases() if not case.right]
    assert len(wrong) > len(cases()) / 5
