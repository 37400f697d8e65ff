"""The rows of a run on disk are those of the table, by row or range, mapped or streamed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcjobs.run_folder.inputs import Inputs, table_parts, table_sha256


@settings(deadline=None, max_examples=25)
@given(count=st.integers(0, 9000), picks=st.lists(st.integers(0, 8999), max_size=6))
def test_random_access_equals_the_rows(count: int, picks: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    table = pa.table({"index": pa.array(range(count), pa.int64()), "id": pa.array([f"i{n}" for n in range(count)])})
    path = tmp_path_factory.mktemp("inputs") / "data.arrow"
    path.write_bytes(b"".join(table_parts(table)))
    inputs, streamed = Inputs(path), Inputs.streamed(path)
    assert len(inputs) == len(streamed) == count
    for pick in [number for number in [*picks, 0, 4095, 4096, count - 1] if 0 <= number < count]:
        assert inputs[pick] == {"index": pick, "id": f"i{pick}"}
        assert inputs.ids(pick, pick + 5000) == [f"i{n}" for n in range(pick, min(count, pick + 5000))]
        assert streamed.rows(pick, pick + 5000).equals(table.slice(pick, 5000))
    assert inputs.rows(0, count).equals(table)
    with pytest.raises(IndexError, match=f"row {count} of {count}"):
        inputs[count]


def test_a_table_without_rows_keeps_its_columns(tmp_path: Path) -> None:
    table = pa.table(
        {"index": pa.array([], pa.int64()), "id": pa.array([], pa.string()), "q": pa.array([], pa.string())}
    )
    (tmp_path / "inputs").write_bytes(b"".join(table_parts(table)))
    inputs = Inputs(tmp_path / "inputs")
    assert (len(inputs), inputs.columns, inputs.ids(0, 0), inputs.values("q")) == (0, ["index", "id", "q"], [], [])


def test_the_hash_is_that_of_the_file() -> None:
    table = pa.table({"index": pa.array(range(10_000), pa.int64()), "id": pa.array([f"i{n}" for n in range(10_000)])})
    assert table_sha256(table) == hashlib.sha256(b"".join(table_parts(table))).hexdigest()
    assert table_sha256(table.slice(0, 9_999)) != table_sha256(table)


def test_the_hash_does_not_depend_on_what_is_below_a_null() -> None:
    mask = pa.array([False, True])
    objects = [
        pa.StructArray.from_arrays([pa.array(values)], fields=[pa.field("a", pa.string())], mask=mask)
        for values in (["x", "below"], ["x", None], ["x", "other"])
    ]
    assert objects[0].equals(objects[1])
    hashes = {table_sha256(pa.table({"o": one})) for one in objects}
    lists = [pa.ListArray.from_arrays(pa.array([0, 2, 2], pa.int32()), one) for one in objects]
    assert (len(hashes), len({table_sha256(pa.table({"l": one})) for one in lists})) == (1, 1)
