"""Every Arrow type in every other: taken with pyarrow's own values to the results, or refused when planning."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpcjobs.config import DataConfig
from hpcjobs.errors import DataError
from hpcjobs.tasks.datasets import load_table
from tests.reference import arrow_columns as columns
from tests.reference.test_arrow import write
from tests.reference.test_json import back, inputs_of
from tests.reference.values import same

Typed = Iterable[tuple[str, pa.Array]]


def in_file(arrays: Typed, path: Path, mark: dict[bytes, bytes] | None = None) -> list[dict[str, Any]]:
    """Write columns to a file, and what pyarrow reads of it."""
    named = dict(arrays)
    fields = [pa.field(name, one.type, metadata=mark) for name, one in named.items()]
    table = pa.Table.from_arrays(list(named.values()), schema=pa.schema(fields))
    write(table, path, 0 if path.suffix == ".parquet" else 1)
    rows: list[dict[str, Any]] = (pq.read_table(path) if path.suffix == ".parquet" else table).to_pylist()
    return rows


def has_file(array: pa.Array) -> bool:
    """Whether pyarrow writes the column to Parquet, and reads it again."""
    try:
        pq.write_table(pa.table({"x": array}), content := pa.BufferOutputStream())
        pq.read_table(pa.BufferReader(content.getvalue()))
    except (pa.ArrowException, OSError):
        return False
    return True


def taken(path: Path, expected: list[dict[str, Any]]) -> None:
    inputs = inputs_of(load_table(DataConfig(name=str(path))), path.with_name("inputs"))
    rows = [{name: value for name, value in inputs[n].items() if name in expected[0]} for n in range(len(inputs))]
    for name in expected[0]:
        assert same([row[name] for row in rows], [row[name] for row in expected]), name
    found = back(inputs, path.with_name("results.parquet"))
    for name in expected[0]:
        assert same([row[name] for row in found], [row[name] for row in expected]), name


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
@pytest.mark.parametrize("kinds", columns.FINE, ids=lambda kinds: kinds.__name__)
def test_values_come_back_in_every_type(tmp_path: Path, kinds: Callable[[], Typed], ending: str) -> None:
    for name, array in kinds():
        made = [(name, array), *columns.within(array)]
        made = [(key, one) for key, one in made if ending == "arrow" or has_file(one)]
        if ending == "arrow":
            made.append(("lists of size 0", columns.none_in_lists_of_0(array)))
        if made:
            path = tmp_path / f"d.{ending}"
            expected = in_file(made, path)
            if "json" in name or "empty object" in name:
                expected = [{key: columns.decoded(one) for key, one in row.items()} for row in expected]
            taken(path, expected)


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_texts_of_a_column_of_json_are_their_values(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"d.{ending}"
    for name, array in columns.marked():
        rows = in_file([(name, array)], path, columns.MARK)
        taken(path, [{key: columns.decoded(one) for key, one in row.items()} for row in rows])
        made = [(key, one) for key, one in columns.within(array, columns.MARK) if ending == "arrow" or has_file(one)]
        rows = in_file(made, path)
        taken(path, [{key: columns.decoded(one) for key, one in row.items()} for row in rows])


def refused(path: Path, name: str) -> str:
    with pytest.raises(DataError) as told:
        load_table(DataConfig(name=str(path)))
    message = str(told.value)
    assert "column 'x'" in message, name
    assert path.name in message
    return message


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
@pytest.mark.parametrize(
    ("kinds", "mark"),
    [(columns.impossible_times, None), (columns.impossible_texts, None), (columns.no_json, columns.MARK)],
)
def test_values_that_python_does_not_have_are_refused_by_row(
    tmp_path: Path, kinds: Callable[[], Typed], mark: dict[bytes, bytes] | None, ending: str
) -> None:
    path = tmp_path / f"d.{ending}"
    for name, array in kinds():
        for where, one in [("alone", array), *columns.within(array, mark)]:
            if ending == "parquet" and (not has_file(one) or "dictionary" in name or "date64" in name):
                continue  # what such a file cannot hold, or pyarrow does not read again
            field = pa.field("x", one.type, metadata=mark if where == "alone" else None)
            write(pa.table([one], schema=pa.schema([field])), path, 0 if ending == "parquet" else 1)
            row = 0 if where.startswith("not null") else 2
            assert f"row {row}, " in refused(path, f"{name}, {where}"), f"{name}, {where}"


def test_types_that_the_results_cannot_hold_are_refused_by_column(tmp_path: Path) -> None:
    path = tmp_path / "d.arrow"
    for name, array in columns.unkeepable():
        for where, one in [("alone", array), *columns.within(array)]:
            write(pa.table({"fine": [1, 2, 3], "x": one}), path, 1)
            message = refused(path, f"{name}, {where}")
            assert re.search(r"which results\.parquet cannot hold|the key 'a' twice", message), message


def test_uuids_are_kept_alone(tmp_path: Path) -> None:
    path = tmp_path / "d.arrow"
    taken(path, in_file([("x", columns.uuids())], path))
    for where, one in columns.within(columns.uuids()):
        write(pa.table({"x": one}), path, 1)
        assert "a uuid in lists and objects" in refused(path, where)
