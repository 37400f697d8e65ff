from __future__ import annotations

import os
import random
from pathlib import Path

import pyarrow as pa
import pytest

from hpcjobs.merge import external_sort as spilling
from hpcjobs.merge.external_sort import Spill
from hpcjobs.run_folder.journal.record import Record
from hpcjobs.run_folder.journal.table import journal_schema, table_of
from tests.runs import record_of

BUCKET = 1000
ROWS = 2 * BUCKET + 100
SCHEMA = journal_schema(pa.schema([]))


def sorting(folder: Path, rows: int = ROWS) -> Spill:
    return Spill(folder, rows, SCHEMA, BUCKET)


def table(*records: Record) -> pa.Table:
    return table_of(records, SCHEMA)


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def made(index: int) -> Record:
    return record_of(index, 0, completion=f"né\n{index}\0" + "x" * 1000)


def test_buckets_come_in_input_order_with_their_records_as_added(ram: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spilling, "_BUFFER_BYTES", 20_000)
    order = [*range(0, ROWS, 4), BUCKET - 1, BUCKET, 2 * BUCKET - 1, 2 * BUCKET, ROWS - 1]
    random.Random(0).shuffle(order)
    with sorting(ram) as spill:
        for start in range(0, len(order), 7):
            spill.add(table(*map(made, order[start : start + 7])))
        (folder,) = ram.iterdir()
        found, sizes = [], []
        for indexes, rows in spill.buckets(ROWS):
            found.append((indexes, rows))
            sizes.append(on_disk(folder))
        assert sizes[0] > 1000 * len([n for n in order if n >= BUCKET]), "they were on the disk"
        assert sizes == sorted(sizes, reverse=True), "what was read takes no more room"
        assert sizes[-1] == 0
    assert [indexes for indexes, _ in found] == [range(BUCKET), range(BUCKET, 2 * BUCKET), range(2 * BUCKET, ROWS)]
    for indexes, rows in found:
        expected = table(*(made(n) for n in order if n in indexes))
        assert pa.table(rows).equals(expected)
    assert os.listdir(ram) == []


@pytest.mark.parametrize(("rows", "ranges"), [(0, [range(0)]), (1, [range(1)]), (BUCKET, [range(BUCKET)])])
def test_one_bucket_needs_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, ranges: list[range]
) -> None:
    monkeypatch.setattr(spilling, "_BUFFER_BYTES", 0)
    with sorting(tmp_path, rows) as spill:
        for index in range(min(rows, 5)):
            spill.add(table(record_of(index, 0)))
        found = list(spill.buckets(rows))
        assert [indexes for indexes, _ in found] == ranges
        assert [part.column("index").to_pylist() for _, part in found] == [list(range(min(rows, 5)))]
        assert os.listdir(tmp_path) == []


def test_a_bucket_without_records_is_there_and_empty(ram: Path) -> None:
    with sorting(ram) as spill:
        spill.add(table(record_of(ROWS - 1, 0)))
        found = [rows for _, rows in spill.buckets(ROWS)]
        assert [len(rows) for rows in found] == [0, 0, 1]
        assert all(rows.schema == SCHEMA for rows in found)


def test_more_buckets_than_sixteen_bits_count_are_sorted_too(ram: Path) -> None:
    rows = 40_000
    with Spill(ram, rows, SCHEMA, 1) as spill:
        spill.add(table(record_of(rows - 1, 0), record_of(5, 0)))
        spill._write()
        assert [spill._read(number)["index"].to_pylist() for number in (5, 6, rows - 1)] == [[5], [], [rows - 1]]


def test_nothing_to_sort_is_written_as_nothing(ram: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spilling, "_BUFFER_BYTES", -1)
    with sorting(ram) as spill:
        spill.add(table())
        assert [len(rows) for _, rows in spill.buckets(ROWS)] == [0, 0, 0]


def test_rows_wait_in_memory_until_there_are_more_bytes_than_the_limit(
    ram: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = table(made(1)), table(made(7))
    for limit, first in ((2 * one.nbytes, 3), (2 * one.nbytes - 1, 2)):
        monkeypatch.setattr(spilling, "_BUFFER_BYTES", limit)
        with Spill(ram, 6, SCHEMA, 5) as spill:
            (folder,) = ram.iterdir()
            for rows, before, after in ((one, [], ["0"]), (other, ["0"], ["0", "1"])):
                for _ in range(first - 1):
                    spill.add(rows)
                    assert sorted(os.listdir(folder)) == before, "what is written waits no longer"
                spill.add(rows)
                assert sorted(os.listdir(folder)) == after
            assert [len(rows) for _, rows in spill.buckets(6)] == [first, first]


def test_a_folder_that_somebody_has_removed_is_no_error_at_the_end(ram: Path) -> None:
    with sorting(ram):
        (folder,) = ram.iterdir()
        folder.rmdir()


def test_an_error_leaves_no_files(ram: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(RuntimeError, match="merge failed"):
        fail_half_way(ram)
    assert os.listdir(ram) == []
    assert len(os.listdir("/proc/self/fd")) == before, "a file is still open"


def fail_half_way(folder: Path) -> None:
    with sorting(folder) as spill:
        spill.add(table(record_of(0, 0)))
        next(spill.buckets(ROWS))
        assert os.listdir(folder)
        raise RuntimeError("merge failed")
