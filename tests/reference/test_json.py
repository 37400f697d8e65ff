"""JSON and JSON Lines against `json.loads`, from the file through inputs/ to the `input` of results.parquet."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcjobs.config import DataConfig
from hpcjobs.merge.results import schema_of
from hpcjobs.run_folder.inputs import Inputs, table_parts, table_sha256
from hpcjobs.run_folder.json_columns import python_rows
from hpcjobs.tasks import arrow_json, jsonl
from hpcjobs.tasks.datasets import load_table
from tests.reference.values import json_rows, same

NAMES = count()
GENERATED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


def inputs_of(table: pa.Table, path: Path) -> Inputs:
    path.write_bytes(b"".join(table_parts(table)))
    return Inputs(path)


def back(inputs: Inputs, path: Path) -> list[dict[str, Any]]:
    """The `input` column of a results.parquet, read again."""
    field = schema_of([], inputs.schema).field("input")
    asked = inputs.rows(0, len(inputs)).combine_chunks()
    columns = [pa.concat_arrays(asked.column(one.name).chunks) for one in field.type]
    column = pa.StructArray.from_arrays(columns, fields=list(field.type))
    pq.write_table(pa.Table.from_arrays([column], schema=pa.schema([field])), path)
    return [row["input"] for row in python_rows(pq.read_table(path))]


@settings(GENERATED, max_examples=300)
@given(
    rows=json_rows(), block=st.integers(1, 300), ascii_only=st.booleans(), as_list=st.booleans(),
    between=st.sampled_from([(",", ":"), (", ", ": ")]), end=st.sampled_from(["\n", "\r\n", " \n", "\n\n"]),
)  # fmt: skip
def test_rows_are_what_json_loads_gives(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], block: int, ascii_only: bool, as_list: bool,
    between: tuple[str, str], end: str,
) -> None:  # fmt: skip
    folder = tmp_path_factory.getbasetemp() / f"json-{next(NAMES)}"
    folder.mkdir()
    path = folder / ("d.json" if as_list else "d.jsonl")
    lines = [json.dumps(row, ensure_ascii=ascii_only, separators=between) for row in rows]
    path.write_text(f"[{','.join(lines)}]" if as_list else "".join(line + end for line in lines), newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "_BLOCK", block)
        table = load_table(DataConfig(name=str(path)))
    inputs = inputs_of(table, folder / "inputs")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    expected = [{name: json.loads(line).get(name) for name in columns} for line in lines]
    found = [inputs[number] for number in range(len(inputs))]
    assert same([{name: row[name] for name in columns} for row in found], expected)
    if columns:
        assert same(back(inputs, folder / "results.parquet"), expected)


@settings(GENERATED, max_examples=100)
@given(rows=json_rows(), block=st.integers(1, 300), cut=st.integers(0, 14))
def test_the_hash_of_rows_does_not_depend_on_how_they_were_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], block: int, cut: int
) -> None:
    path = tmp_path_factory.getbasetemp() / f"hash-{next(NAMES)}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole = load_table(DataConfig(name=str(path)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "_BLOCK", block)
        blocks = load_table(DataConfig(name=str(path)))
    parts = pa.concat_tables([whole.slice(0, cut), whole.slice(cut)])
    assert table_sha256(whole) == table_sha256(blocks) == table_sha256(parts)


@pytest.mark.parametrize(
    "row",
    [
        '{"id":"r%d","n":%d,"t":"a b"}', '{"f":%d.25,"n":%d}', '{"f":1.0,"n":1%d%d}', '{"l":[0.5,%d.25],"n":%d}',
        '{"m":[{"role":"user","content":"%d"},{"role":"x","content":"%d"}],"s":{"a":1,"b":[]}}',
    ],
)  # fmt: skip
def test_usual_columns_are_read_by_arrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: str) -> None:
    taken = list[bool]()
    reads = arrow_json.reads_as_python
    monkeypatch.setattr(jsonl, "_BLOCK", 500)
    monkeypatch.setattr(jsonl, "reads_as_python", lambda *asked: taken.append(reads(*asked)) or taken[-1])
    path = tmp_path / "d.jsonl"
    path.write_text("".join(row % (n, n) + "\n" for n in range(300)))
    assert load_table(DataConfig(name=str(path))).num_rows == 300
    assert len(taken) > 3
    assert all(taken)
