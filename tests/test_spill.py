from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from hpcjobs.spill import BUCKET, Spill
from tests.runs import record_of

ROWS = 2 * BUCKET + 100


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_buckets_come_in_input_order_with_their_records_as_added(ram: Path) -> None:
    order = [*range(0, ROWS, 40), BUCKET - 1, BUCKET, 2 * BUCKET - 1, 2 * BUCKET, ROWS - 1]
    random.Random(0).shuffle(order)
    with Spill(ram, ROWS) as spill:
        for index in order:
            spill.add(record_of(index, 0, completion=f"né\n{index}\ud800" + "x" * 1000))
        (folder,) = ram.iterdir()
        sizes = [on_disk(folder)]
        found = []
        for bucket in spill.buckets(ROWS):
            found.append(bucket)
            sizes.append(on_disk(folder))
        assert sizes[0] > 500 * len(order)
        assert sizes[1:] == sorted(sizes[1:], reverse=True), "what was read takes no more room"
        assert sizes[-1] == 0
    assert [indexes for indexes, _ in found] == [range(BUCKET), range(BUCKET, 2 * BUCKET), range(2 * BUCKET, ROWS)]
    for indexes, records in found:
        expected = [record_of(n, 0, completion=f"né\n{n}\ud800" + "x" * 1000) for n in order if n in indexes]
        assert records == expected
    assert os.listdir(ram) == []


@pytest.mark.parametrize(("rows", "ranges"), [(0, [range(0)]), (1, [range(1)]), (BUCKET, [range(BUCKET)])])
def test_one_bucket_needs_no_disk(tmp_path: Path, rows: int, ranges: list[range]) -> None:
    with Spill(tmp_path, rows) as spill:
        for index in range(min(rows, 5)):
            spill.add(record_of(index, 0))
        assert [indexes for indexes, _ in spill.buckets(rows)] == ranges
        assert [len(records) for _, records in spill.buckets(rows)] == [min(rows, 5)]
        assert os.listdir(tmp_path) == []


def test_a_bucket_without_records_is_there_and_empty(ram: Path) -> None:
    with Spill(ram, ROWS) as spill:
        spill.add(record_of(ROWS - 1, 0))
        assert [len(records) for _, records in spill.buckets(ROWS)] == [0, 0, 1]


def test_an_error_leaves_no_files(ram: Path) -> None:
    with pytest.raises(RuntimeError, match="merge failed"):
        fail_half_way(ram)
    assert os.listdir(ram) == []


def fail_half_way(folder: Path) -> None:
    with Spill(folder, ROWS) as spill:
        spill.add(record_of(0, 0))
        assert os.listdir(folder)
        raise RuntimeError("merge failed")
