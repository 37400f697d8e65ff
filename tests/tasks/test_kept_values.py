"""Values that Python or results.parquet does not have are refused with file, row and column before a run is made.

All types are in tests/reference/test_arrow_columns.py.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpcjobs.config import DataConfig
from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.errors import DataError
from hpcjobs.merge.eval import merge
from hpcjobs.plan.draft import Draft
from hpcjobs.plan.eval import make_plan
from hpcjobs.report import write_report
from hpcjobs.run_folder.inputs import table_sha256
from hpcjobs.run_folder.json_columns import python_rows
from hpcjobs.tasks.datasets import load_table
from tests.reference.values import same
from tests.runs import answer, run_ranks, said

FAR = 400_000_000_000_000  # seconds: millions of years


def dates(count: int, *bad: int) -> pa.Array:
    return pa.array([FAR if n in bad else n for n in range(count)], pa.int64()).view(pa.timestamp("s"))


def planned(path: Path, **data: Any) -> Draft:
    task = {"prompt": "{{ q }}", "target": "x", "metrics": ["exact_match"]}
    values = {
        "model": {"name": "tiny", "engine": "dummy"}, "task": task, "cluster": {"executor": "local"},
        "data": {"name": str(path)} | data, "run": {"heartbeat": 0.2},
    }  # fmt: skip
    return make_plan("eval", validate(Layer(values)), path.parent / "run")


@pytest.mark.parametrize("row", [0, 1, 70_001])
def test_the_row_is_named_wherever_it_is(tmp_path: Path, row: int) -> None:
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table({"q": dates(70_003, row, 70_002)}), path, row_group_size=1000)
    with pytest.raises(DataError, match=rf"d\.parquet: row {row}, column 'q': .* is no value of Python's") as told:
        planned(path)
    assert told.value.exit_code == 2


def test_the_file_of_several_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"q": dates(5)}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"q": dates(5, 3)}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet: row 3, column 'q'"):
        load_table(DataConfig(name=str(tmp_path / "*.parquet")))


def test_rows_that_are_not_used_are_not_looked_at(tmp_path: Path) -> None:
    for name, bad in (("a.parquet", ()), ("b.parquet", (3,))):
        pq.write_table(pa.table({"q": dates(5, *bad)}), tmp_path / name)
    assert len(load_table(DataConfig(name=str(tmp_path / "*.parquet"), max_samples=8))) == 8
    with pytest.raises(DataError, match=r"b\.parquet: row 3"):
        load_table(DataConfig(name=str(tmp_path / "*.parquet"), max_samples=9))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    indices = pa.array([0, 1, 0], pa.int8())
    column = pa.DictionaryArray.from_arrays(indices, pa.array(["only one"]), safe=False)
    path = tmp_path / "d.arrow"
    with pa.ipc.new_file(str(path), pa.schema([pa.field("q", column.type)])) as writer:
        writer.write_table(pa.table({"q": column}))
    with pytest.raises(DataError, match=r"d\.arrow: column 'q' is damaged"):
        load_table(DataConfig(name=str(path)))


def test_values_below_a_null_and_no_numbers_are_no_difference(tmp_path: Path) -> None:
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([3], pa.int32()), pa.array(["x"]))
    field = pa.field("a", runs.type, nullable=False)
    objects = pa.StructArray.from_arrays([runs], fields=[field], mask=pa.array([False, True, False]))
    path = tmp_path / "d.arrow"
    table = pa.table({"o": objects, "n": [float("nan")] * 3})
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)
    assert [row["o"] for row in python_rows(load_table(DataConfig(name=str(path))))] == [{"a": "x"}, None, {"a": "x"}]


def test_objects_whose_keys_are_never_null_come_back_from_a_run(tmp_path: Path) -> None:
    objects = pa.StructArray.from_arrays(
        [pa.array([1, 0, 3])], fields=[pa.field("a", pa.int64(), nullable=False)], mask=pa.array([False, True, False])
    )
    pq.write_table(table := pa.table({"q": ["a", "b", "c"], "meta": objects}), tmp_path / "d.parquet")
    draft = planned(tmp_path / "d.parquet")
    draft.write()
    run_ranks(draft.paths, 1)
    assert merge(draft.paths).complete
    assert same([row["input"] for row in pq.read_table(draft.paths.results).to_pylist()], table.to_pylist())


def test_a_row_that_a_rank_cannot_read_is_an_error_of_that_sample_alone(tmp_path: Path) -> None:
    pq.write_table(pa.table({"q": ["a", "b", "c"], "when": dates(3)}), tmp_path / "d.parquet")
    draft = planned(tmp_path / "d.parquet")
    assert draft.table is not None
    table = draft.table.set_column(3, "when", dates(3, 1))  # as on a node that lacks a time zone
    plan = dataclasses.replace(draft.plan, data=dataclasses.replace(draft.plan.data, sha256=table_sha256(table)))
    dataclasses.replace(draft, table=table, plan=plan).write()
    run_ranks(draft.paths, 1)
    assert merge(draft.paths).complete
    assert said(draft.paths)["counts"]["errors"] == 1
    rows = python_rows(pq.read_table(draft.paths.results, columns=["id", "completion", "error"]))
    assert [row["completion"] for row in rows] == [answer("a"), "", answer("c")]
    assert rows[1]["error"]["type"] == "OverflowError"
    assert "OverflowError" in write_report(draft.paths).read_text()


@pytest.mark.parametrize("name", ["name", "nested"])
def test_a_name_that_is_no_utf8_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "d.arrow"
    table = pa.table({"name": [1], "q": [{"nested": 1}]})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    path.write_bytes(path.read_bytes().replace(name.encode(), b"\xff" * len(name)))
    with pytest.raises(DataError, match=r"d\.arrow cannot be read: a name in it is no UTF-8"):
        load_table(DataConfig(name=str(path)))
