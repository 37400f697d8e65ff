"""Shares of plain data, rank by rank. tests/test_connector_kinds.py has those of libraries, on real ranks."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from hpcjobs.distributed.share import share_of
from hpcjobs.errors import UsageError

ROWS = [{"n": n, "text": f"item {n}"} for n in range(97)]


@pytest.mark.parametrize("world", [1, 2, 3, 4, 100])
@pytest.mark.parametrize("make", [list, tuple, deque, iter, lambda rows: (row for row in rows)])
def test_parts_are_every_other_row_and_together_all(make: Any, world: int) -> None:
    shares = [share_of(make(ROWS), rank, world) for rank in range(world)]
    assert [share.part for share in shares] == [ROWS[rank::world] for rank in range(world)]
    assert {share.rows for share in shares} == {97}
    assert all(share.samples == shares[0].samples for share in shares)


def test_an_iterable_and_a_list_of_it_have_the_same_samples() -> None:
    one, other = share_of(ROWS, 0, 2), share_of(iter(ROWS), 0, 2)
    assert (one.samples, one.rows) == (other.samples, other.rows)
    assert sorted(one.samples) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64]


def test_samples_tell_other_rows_and_not_floats_or_the_order_of_keys() -> None:
    def sample(row: Any) -> str:
        return share_of([row], 0, 1).samples[0]

    assert sample({"a": 1, "b": "x"}) == sample({"b": "x", "a": 1})
    assert sample([1, 0.5, {"a"}]) == sample([1, 0.25, {"b"}])
    others: list[Any] = [{"a": 1}, {"a": 2}, {"a": "1"}, {"b": 1}, {"a": True}, {"a": [1]}, {"a": None}, "a", b"a"]
    assert len({sample(row) for row in others}) == len(others)


def test_columns_of_a_dict_are_split_alike() -> None:
    columns = {"n": range(5), "text": tuple("abcde")}
    assert [share_of(columns, rank, 2).part for rank in range(2)] == [
        {"n": [0, 2, 4], "text": ["a", "c", "e"]}, {"n": [1, 3], "text": ["b", "d"]},
    ]  # fmt: skip


@pytest.mark.parametrize("data", ["abc", b"abc", {1, 2}, None, 7, {"a": [1], "b": [1, 2]}, {"a": "text"}, lambda: [1]])
def test_what_has_no_rows_in_an_order_is_refused(data: Any) -> None:
    with pytest.raises(UsageError, match=r"^split_dataset: "):
        share_of(data, 0, 1)
