"""Rows of Parquet and Arrow files, and what of Arrow's types a run cannot keep."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hpcjobs.errors import DataError
from hpcjobs.run_folder.json_columns import is_json, is_list

_FILE = b"ARROW1"
_LONG = 1 << 30


def read_parquet(path: Path) -> pa.Table:
    """The rows of this file alone: `pq.read_table` would add columns for folders called `year=2020`."""
    with pq.ParquetFile(path) as file:
        return file.read()


def read_arrow(path: Path) -> pa.Table:
    """The rows of an Arrow file, or of an Arrow stream as `datasets` writes them."""
    with path.open("rb") as file:
        whole = file.read(len(_FILE)) == _FILE
    with pa.OSFile(str(path)) as source:
        return (pa.ipc.open_file(source) if whole else pa.ipc.open_stream(source)).read_all()


def plain(table: pa.Table) -> pa.Table:
    """The same values without dictionaries, views and runs, which Arrow files and Parquet do not hold everywhere."""
    fields = [field.with_type(_plain(field.type)) for field in table.schema]
    columns = [_cast(column, field.type) for column, field in zip(table.columns, fields, strict=True)]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields)) if fields else table


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _plain(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_plain(kind.key_type), _plain(kind.item_type))
    if is_list(kind):
        inner = kind.value_field.with_type(_plain(kind.value_type))
        return kind if inner.type == kind.value_type else pa.list_(inner)
    views = {"string_view": pa.large_string(), "binary_view": pa.large_binary()}
    if str(kind).startswith(("list_view", "large_list_view")):
        return pa.large_list(kind.value_field.with_type(_plain(kind.value_type)))
    return views.get(str(kind), kind)


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if column.type == kind:
        return column
    if not pa.types.is_nested(kind):
        return column.cast(kind)
    # Arrow's own casts of nested views give arrays that crash the process which reads them (pyarrow 26).
    return pa.chunked_array([pa.array(part.to_pylist(), kind, from_pandas=False) for part in column.chunks], kind)


def roomy(table: pa.Table) -> pa.Table:
    """The table, long text columns with 64-bit places: what is put together from them may be longer than 2 GiB."""
    for number, field in enumerate(table.schema):
        column = table.column(number)
        if pa.types.is_string(field.type) and column.nbytes > _LONG:
            table = table.set_column(number, field.with_type(pa.large_string()), column.cast(pa.large_string()))
    return table


def check_keepable(table: pa.Table, name: str) -> None:
    """A DataError where Parquet has no place for a column's type, or its JSON texts are none: later is too late."""
    for field, column in zip(table.schema, table.columns, strict=True):
        if isinstance(field.type, pa.BaseExtensionType) and is_json(field):
            _check_json(column.to_pylist(), f"data set {name}: column {field.name!r}")
        try:
            part = pa.table([column.slice(0, 1)], schema=pa.schema([field]))
            pq.write_table(part, io.BytesIO())
        except (pa.ArrowException, ValueError) as error:
            raise DataError(
                f"data set {name}: column {field.name!r} holds {field.type}, which results.parquet cannot hold: {error}"
            ) from None


def _check_json(texts: Sequence[Any], column: str) -> None:
    for number, text in enumerate(texts):
        try:
            json.loads("null" if text is None else text)
        except ValueError as error:
            raise DataError(f"{column}, row {number}: not JSON: {error}") from None


def same_columns(parts: Sequence[pa.Table], files: Sequence[Path]) -> pa.Schema:
    """The schema of all shards: the same columns in any order, each of one type, or null in some; else a DataError."""
    first = parts[0].schema
    fields = {field.name: field for field in first}
    for part, path in zip(parts, files, strict=True):
        if difference := sorted(set(part.schema.names) ^ set(first.names)):
            raise DataError(f"{path} has other columns than {files[0]}: {', '.join(map(repr, difference))}")
        for field in part.schema:
            known = fields[field.name]
            if pa.types.is_null(known.type):
                fields[field.name] = field
            elif not pa.types.is_null(field.type) and (known.type != field.type or is_json(known) != is_json(field)):
                raise DataError(
                    f"{path}: column {field.name!r} holds {field.type}, and {known.type} in {files[0]}: "
                    "all shards of a data set hold one type"
                )
    return pa.schema([fields[name] for name in first.names])
