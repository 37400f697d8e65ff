"""The ids of rows: unique texts that are not empty."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hpcjobs.errors import DataError, did_you_mean
from hpcjobs.run_folder.json_columns import is_json, python_values

_ROWS_AS_OBJECTS = 65_536


def slices(rows: int) -> Iterator[slice]:
    """All rows, some at a time: Python's objects of all of them would be ten times their columns."""
    return (slice(start, start + _ROWS_AS_OBJECTS) for start in range(0, rows, _ROWS_AS_OBJECTS))


def row_ids(table: pa.Table, id_column: str | None) -> pa.ChunkedArray:
    """The ids as texts, of column `id_column`, or `id`, or the rows' numbers; a DataError where they are no ids."""
    name = id_column or ("id" if "id" in table.column_names else None)
    if name is None:
        return pa.chunked_array([np.arange(len(table))]).cast(pa.string())
    if name not in table.column_names:
        raise DataError(
            f"data.id_column {name!r} is not a column{did_you_mean(name, table.column_names)}; "
            f"columns: {', '.join(table.column_names)}"
        )
    column, field = table.column(name), table.schema.field(name)
    if (missing := pc.index(pc.is_null(column), True).as_py()) >= 0:
        raise _no_id(missing, name)
    ids = _texts(field, column)
    if (empty := pc.index(ids, "").as_py()) >= 0:
        raise _no_id(empty, name)
    if pc.count_distinct(ids).as_py() < len(ids):
        raise _twice(ids, name)
    return ids


def _texts(field: pa.Field, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """`str` of each value, none of which is null; a DataError where texts stand beside other values."""
    kind = column.type
    if is_json(field):
        return _json_texts(field, column)
    if pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column.cast(pa.string())
    parts = [pa.array(map(str, column[part].to_pylist()), pa.string()) for part in slices(len(column))]
    return pa.chunked_array(parts, pa.string())


def _json_texts(field: pa.Field, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """`str` of the values of a column that is kept as JSON."""
    values = python_values(field, column)
    texts = [isinstance(value, str) for value in values]
    if any(texts) and not all(texts):
        one, other = texts.index(True), texts.index(False)
        raise DataError(
            f"column {field.name!r} has texts beside other ids (row {one}: {values[one]!r}, row {other}: "
            f"{values[other]!r}): write them all as texts, or name another column, data.id_column"
        )
    return pa.chunked_array([pa.array(map(str, values), pa.string())])


def _no_id(row: int, name: str) -> DataError:
    return DataError(f"row {row} has no id in column {name!r}: every row needs one")


def _twice(ids: pa.ChunkedArray, name: str) -> DataError:
    """Names the first id that stands twice."""
    seen: dict[str, int] = {}
    for number, text in enumerate(value for part in slices(len(ids)) for value in ids[part].to_pylist()):
        if text in seen:
            return DataError(f"id {text!r} stands twice in column {name!r}: rows {seen[text]} and {number}")
        seen[text] = number
    raise AssertionError("no id stands twice")
