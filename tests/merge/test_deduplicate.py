from __future__ import annotations

import random

import pyarrow as pa
import pytest

from hpcjobs.merge.deduplicate import choose
from hpcjobs.merge.tally import Tally

FIRST = 100
IDS = pa.chunked_array([[f"id-{n}" for n in range(FIRST, FIRST + 50)], [f"id-{n}" for n in range(FIRST + 50, 200)]])

Row = tuple[int, int, str, float]  # index, source, completion, seconds


def chosen(rows: list[Row], ids: dict[int, str] | None = None) -> tuple[list[int], Tally]:
    """The numbers of the rows that count; `ids` are those of rows that do not have their own."""
    named = [(ids or {}).get(number, f"id-{row[0]}") for number, row in enumerate(rows)]
    index, source, completion, seconds = zip(*rows, strict=True) if rows else ((), (), (), ())
    columns = {
        "index": pa.array(index, pa.int64()), "id": pa.array(named, pa.string()),
        "source": pa.array(source, pa.int32()), "completion": pa.array(completion, pa.string()),
        "seconds": pa.array(seconds, pa.float64()),
    }  # fmt: skip
    tally = Tally()
    return choose(pa.record_batch(columns), IDS, FIRST, tally).tolist(), tally


def test_records_come_by_index() -> None:
    order = list(range(FIRST, 200))
    random.Random(0).shuffle(order)
    found, tally = chosen([(index, 0, "a", 1.0) for index in order])
    assert [order[number] for number in found] == list(range(FIRST, 200))
    assert tally == Tally()


def test_no_records_are_none() -> None:
    assert chosen([]) == ([], Tally())


def test_a_line_that_stands_twice_counts_once() -> None:
    row, other = (105, 0, "a", 1.0), (104, 0, "a", 1.0)
    found, tally = chosen([row, other, row, row])
    assert found == [1, 0]
    assert tally == Tally(duplicates=2)


@pytest.mark.parametrize("other", [(105, 0, "b", 1.0), (105, 0, "a", 2.0)])
def test_a_journal_with_two_lines_that_differ_does_not_count(other: Row) -> None:
    row, later, beside = (105, 0, "a", 1.0), (105, 1, "c", 1.0), (106, 0, "a", 1.0)
    found, tally = chosen([row, beside, other, row])
    assert found == [1]
    assert tally.problems == {105: "its journal has two records that differ"}
    assert chosen([row, beside, other, row, later])[0] == [4, 1], "a later journal's does"


def test_of_two_journals_the_first_one_counts() -> None:
    found, tally = chosen([(105, 3, "a", 1.0), (105, 1, "b", 1.0), (105, 1, "c", 1.0)])
    assert found == [0]
    assert (tally.problems, tally.duplicates) == ({}, 2)


def test_a_foreign_id_does_not_count_and_a_later_journal_may() -> None:
    rows = [(105, 0, "a", 1.0), (106, 0, "a", 1.0), (106, 1, "a", 1.0)]
    found, tally = chosen(rows, {0: "stranger", 1: "id-105"})
    assert found == [2]
    assert tally.foreign == 2
    words = "its record has the foreign id"
    assert tally.problems == {105: f"{words} 'stranger'", 106: f"{words} 'id-105'"}


def test_a_right_line_of_a_journal_that_was_wrong_does_not_count() -> None:
    assert chosen([(105, 0, "a", 1.0), (105, 0, "a", 1.0)], {0: "stranger"})[0] == []
