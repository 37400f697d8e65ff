from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpcjobs.compare.reader import Reader
from hpcjobs.compare.results import Results
from hpcjobs.errors import MergeError


def reader(folder: Path, indexes: list[int], group: int = 1000) -> Reader:
    names = [f"row-{index}" for index in indexes]
    table = pa.table({"index": pa.array(indexes, pa.int64()), "id": pa.array(names, pa.string()), "completion": names})
    pq.write_table(table, folder / "results.parquet", row_group_size=group)
    return Reader(Results(folder / "results.parquet"), ("completion", "scores", "id"))


@pytest.mark.parametrize("group", [1, 3, 1000])
def test_rows_come_below_the_cut_however_the_file_is_cut(tmp_path: Path, group: int) -> None:
    rows = reader(tmp_path, [0, 1, 4, 5, 9], group)
    taken = []
    for stop in (1, 1, 5, 5, 20):
        table = rows.take(stop)
        assert table.column_names == ["index", "id", "completion"]
        taken.append((table.column("index").to_pylist(), rows.next_index()))
    assert taken == [([0], 1), ([], 1), ([1, 4], 5), ([], 5), ([5, 9], None)]
    assert len(rows.take(100)) == 0


def test_a_file_without_rows_has_its_columns(tmp_path: Path) -> None:
    rows = reader(tmp_path, [])
    assert rows.next_index() is None
    assert (len(rows.take(7)), rows.take(7).column_names) == (0, ["index", "id", "completion"])


def test_a_file_in_another_order_is_named(tmp_path: Path) -> None:
    rows = reader(tmp_path, [0, 2, 1], 1)
    assert rows.take(1).column("index").to_pylist() == [0]
    with pytest.raises(MergeError, match=r"results\.parquet is not in input order; next: hpcjobs merge"):
        rows.take(3)
