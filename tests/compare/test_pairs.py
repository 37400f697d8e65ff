"""Samples of two tables are paired by id, whatever stands where."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpcjobs.compare.pairs import Pairs
from hpcjobs.compare.results import Results
from hpcjobs.errors import MergeError


class Tables:
    """Two files, made of (index, id) rows; a sample's text says where it is from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def results(
        self, name: str, rows: Sequence[tuple[int, str]], group: int = 1000, kind: pa.DataType = None
    ) -> Results:
        path = self.folder / f"{name}.parquet"
        table = pa.table(
            {
                "index": pa.array([index for index, _ in rows], pa.int64()),
                "id": pa.array([key for _, key in rows], kind or pa.string()),
                "completion": pa.array([f"{name} of {key}" for _, key in rows], pa.string()),
            }
        )
        pq.write_table(table, path, row_group_size=group)
        return Results(path)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path)


def found(pairs: Pairs) -> list[tuple[int, int, str]]:
    """Index in A, index in B, id; every pair is of one id."""
    return list(_found(pairs))


def _found(pairs: Pairs) -> Iterator[tuple[int, int, str]]:
    for one, other in pairs.tables(["completion"]):
        assert 0 < len(one) == len(other)
        for a, b in zip(one.to_pylist(), other.to_pylist(), strict=True):
            assert (a["id"], a["completion"], b["completion"]) == (b["id"], f"a of {a['id']}", f"b of {a['id']}")
            yield a["index"], b["index"], a["id"]


def rows(*numbers: int) -> list[tuple[int, str]]:
    """Rows whose id goes by their index."""
    return [(number, f"row-{number}") for number in numbers]


@pytest.mark.parametrize("groups", [(30_000, 700), (8192, 8192), (100, 30_000)])
def test_the_same_rows_in_the_same_order_however_they_are_cut(tables: Tables, groups: tuple[int, int]) -> None:
    every = rows(*range(20_000))
    pairs = Pairs(tables.results("a", every, groups[0]), tables.results("b", every, groups[1]))
    assert (pairs.in_order, pairs.common, pairs.only_a, pairs.only_b) == (True, 20_000, 0, 0)
    assert found(pairs) == [(n, n, f"row-{n}") for n in range(20_000)]
    assert found(pairs) == found(pairs), "it can be read again"


@pytest.mark.parametrize("same_data", [True, False])
def test_what_either_lacks_is_left_out_and_counted(tables: Tables, same_data: bool) -> None:
    a = [n for n in range(20_000) if n % 7 != 3 and not 9000 < n < 18_500]
    b = [n for n in range(25_000) if n % 5 != 1]
    pairs = Pairs(tables.results("a", rows(*a)), tables.results("b", rows(*b)), same_data)
    both = sorted({*a} & {*b})
    assert (pairs.in_order, pairs.common) == (True, len(both))
    assert (pairs.only_a, pairs.only_b) == (len(a) - len(both), len(b) - len(both))
    assert found(pairs) == [(n, n, f"row-{n}") for n in both]


@pytest.mark.parametrize("count", [3, 20_000])
def test_another_order_is_joined_by_id(tables: Tables, count: int) -> None:
    keys = [f"row-{n}" for n in range(count)]
    other = [*keys[: count - 1], "new"]
    random.Random(4).shuffle(other)
    a, b = tables.results("a", list(enumerate(keys))), tables.results("b", list(enumerate(other)), 900)
    pairs = Pairs(a, b)
    assert (pairs.in_order, pairs.common, pairs.only_a, pairs.only_b) == (False, count - 1, 1, 1)
    where = {key: place for place, key in enumerate(other)}
    assert found(pairs) == [(n, where[key], key) for n, key in enumerate(keys[:-1])]


def test_an_id_at_an_index_that_the_other_lacks_is_found(tables: Tables) -> None:
    """No index is in both with different ids, and yet `x` is in both."""
    a, b = tables.results("a", [(0, "w"), (1, "x")]), tables.results("b", [(0, "w"), (2, "x")])
    pairs = Pairs(a, b)
    assert (pairs.in_order, pairs.common, pairs.only_a, pairs.only_b) == (False, 2, 0, 0)
    assert found(pairs) == [(0, 0, "w"), (1, 2, "x")]


def test_no_row_no_pair(tables: Tables) -> None:
    empty, some = tables.results("a", []), tables.results("b", rows(0, 1))
    for a, b in ((empty, some), (empty, empty), (tables.results("five", rows(5)), some)):
        pairs = Pairs(a, b)
        assert (pairs.common, found(pairs), pairs.only_a, pairs.only_b) == (0, [], a.rows, b.rows)
    disjoint = Pairs(tables.results("xy", [(0, "x"), (1, "y")]), some)
    assert (disjoint.in_order, disjoint.common, found(disjoint)) == (False, 0, [])


def test_texts_of_another_width_are_the_same_ids(tables: Tables) -> None:
    pairs = Pairs(tables.results("a", rows(0, 1)), tables.results("b", rows(0, 1), kind=pa.large_string()))
    assert (pairs.in_order, pairs.common) == (True, 2)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([(0, "row-0"), (2, "row-2"), (1, "row-1")], "is not in input order"),
        ([(0, "row-0"), (0, "row-0")], "is not in input order"),
        ([(-1, "row-0")], "is not in input order"),
        ([(0, "q"), (1, "row-1"), (2, "row-1")], "id 'row-1' stands twice"),
        ([(0, None), (1, "row-1")], "has rows without id"),
        ([(None, "row-0")], "has rows without index"),
    ],
)
def test_a_table_that_no_merge_wrote_is_named(tables: Tables, wrong: list[tuple[int, str]], said: str) -> None:
    right = tables.results("a", rows(0, 1, 2))
    with pytest.raises(MergeError, match=rf"b\.parquet:? {said}.*; next: hpcjobs merge"):
        found(Pairs(right, tables.results("b", wrong)))


def test_a_file_that_is_no_table_or_breaks_off_is_named(tables: Tables, tmp_path: Path) -> None:
    (tmp_path / "no.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(MergeError, match=r"no\.parquet cannot be read"):
        Results(tmp_path / "no.parquet")
    pq.write_table(pa.table({"index": [0]}), tmp_path / "no.parquet")
    with pytest.raises(MergeError, match="no column 'id'"):
        Results(tmp_path / "no.parquet")
    whole = tables.results("a", rows(*range(30_000)))
    content = bytearray(whole.path.read_bytes())
    content[1000:60_000] = bytes(59_000)
    (tmp_path / "holes.parquet").write_bytes(content)
    with pytest.raises(MergeError, match=r"holes\.parquet cannot be read"):
        found(Pairs(whole, Results(tmp_path / "holes.parquet")))


def test_a_file_that_is_replaced_between_two_readings_is_said(tables: Tables) -> None:
    a = tables.results("a", rows(0, 1))
    pairs = Pairs(a, tables.results("b", rows(0, 1)))
    assert len(found(pairs)) == 2
    tables.results("new", rows(0)).path.replace(a.path)
    with pytest.raises(MergeError, match=r"a\.parquet has been replaced while it was read: type the command again"):
        found(pairs)


def test_memory_stays_flat_in_the_same_order(tables: Tables) -> None:
    def peak(count: int) -> int:
        a, b = (tables.results(name, rows(*range(count)), 4096) for name in "ab")
        before, most = pa.total_allocated_bytes(), 0
        for _ in Pairs(a, b).tables(["completion"]):
            most = max(most, pa.total_allocated_bytes() - before)
        return most

    small, large = peak(60_000), peak(240_000)
    assert large < 1.5 * small, (small, large)
