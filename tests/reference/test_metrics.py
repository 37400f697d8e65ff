"""Metrics against lm_eval, sacrebleu, rouge_score, scipy and others: a short form of tests/reference/differences.py."""

from __future__ import annotations

import re

import pytest

from hpcjobs.metrics import BUILT_IN, OVER_REPEATS
from tests.reference.differences import PAGE, Row, table

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
    named = {name for row in rows for name in re.findall(r"`([\w@]+)`", row.metric)}
    assert {*BUILT_IN, *OVER_REPEATS} - {"number_match"} <= named
    page = PAGE.read_text(encoding="utf-8")
    assert [row for row in rows if f"| {row.metric} | {row.reference} |" not in page] == []
