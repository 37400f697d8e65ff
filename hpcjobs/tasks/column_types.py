"""The Arrow type that holds Python's values exactly, as `json.loads` gives them; JSON texts where there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import pyarrow as pa

from hpcjobs.errors import DataError
from hpcjobs.run_folder.json_columns import is_json, is_list, json_array, json_field, python_values
from hpcjobs.tasks.json_limits import half_pair, json_problem, too_deep

# Arrow's files hold types 64 deep; a deeper value is kept as JSON.
_DEEPEST_TYPE = 16
_SCALARS = {bool: pa.bool_(), float: pa.float64(), str: pa.string()}
_NULL = type(None)


def exact_type(values: Sequence[Any], depth: int = 0) -> pa.DataType | None:
    """The type whose Python values are `values` again, key for key and in order; None where there is none."""
    kinds = set(map(type, values)) - {_NULL}
    if not kinds:
        return pa.null()
    if len(kinds) > 1 or depth > _DEEPEST_TYPE:
        return None
    kind = kinds.pop()
    there = [value for value in values if value is not None]
    if kind is int:
        return pa.int64() if min(there) >= -(2**63) and max(there) < 2**63 else None
    if kind is list:
        inner = exact_type(list(chain.from_iterable(there)), depth + 1)
        return inner and pa.list_(inner)
    return _struct(there, depth) if kind is dict else _SCALARS[kind]


def _struct(objects: Sequence[dict[str, Any]], depth: int) -> pa.DataType | None:
    """A struct has all its keys in every row, in one order, and Parquet writes none without keys."""
    shapes = set(map(tuple, objects))
    names = shapes.pop()
    if shapes or not names:
        return None
    fields = []
    for name in names:
        kind = exact_type([one[name] for one in objects], depth + 1)
        if kind is None:
            return None
        fields.append(pa.field(name, kind))
    return pa.struct(fields)


def rows_table(rows: Sequence[Any], place: Callable[[int], str]) -> pa.Table:
    """Rows as Python reads them, as a table; a key that a row lacks is null.

    Raises DataError, at `place(number of the row)`, where a row is no object or no UTF-8 can hold a text.
    """
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{place(number)} is {type(row).__name__}, not an object")
    names = list(dict.fromkeys(chain.from_iterable(rows)))
    made = [_column(name, rows, place) for name in names]
    if not made:
        return no_columns(len(rows))
    return pa.Table.from_arrays([column for _, column in made], schema=pa.schema([field for field, _ in made]))


def no_columns(rows: int) -> pa.Table:
    """A table of that many rows that has no column."""
    return pa.Table.from_batches([pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))])


def _column(
    name: str, rows: Sequence[dict[str, object]], place: Callable[[int], str]
) -> tuple[pa.Field, pa.Array | pa.ChunkedArray]:
    values = [row.get(name) for row in rows]
    try:
        kind = exact_type(values)
        if kind is not None:
            return pa.field(name, kind), pa.array(values, kind, from_pandas=False)
        for number, value in enumerate(values):
            if problem := too_deep(value):
                raise DataError(f"{place(number)}, column {name!a}: {problem}")
        return json_field(name), json_array(values)
    except UnicodeEncodeError:
        raise _half_pair(name, rows, place) from None


def _half_pair(name: str, rows: Sequence[dict[str, object]], place: Callable[[int], str]) -> DataError:
    """Names the first row whose text or key has half a surrogate pair."""
    for number, row in enumerate(rows):
        if name in row and (problem := half_pair(name) or json_problem(row[name])):
            return DataError(f"{place(number)}, column {name!a}: {problem}")
    raise AssertionError("all texts are Unicode")


def united(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type of both columns' values, none of which changes; None where only JSON holds them all."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if is_list(one) and is_list(other):
        inner = united(one.value_type, other.value_type)
        return inner and pa.list_(inner)
    if pa.types.is_struct(one) and pa.types.is_struct(other) and _names(one) == _names(other):
        kinds = [united(mine.type, theirs.type) for mine, theirs in zip(one, other, strict=True)]
        return None if None in kinds else pa.struct(list(zip(_names(one), kinds, strict=True)))
    return None


def _names(kind: pa.DataType) -> list[str]:
    return [field.name for field in kind]


def united_field(one: pa.Field, other: pa.Field) -> pa.Field:
    """The field of a column that is `one` in some rows and `other` in others."""
    if is_json(one) or is_json(other):
        return json_field(one.name)
    kind = united(one.type, other.type)
    return json_field(one.name) if kind is None else pa.field(one.name, kind)


def united_schema(one: pa.Schema, other: pa.Schema) -> pa.Schema:
    """The columns of both, the first's first."""
    fields = {field.name: field for field in one}
    for field in other:
        fields[field.name] = united_field(fields[field.name], field) if field.name in fields else field
    return pa.schema(list(fields.values()))


def joined(parts: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    """Tables one after the other, each brought to `schema`, their `united_schema`."""
    if not len(schema):
        return no_columns(sum(map(len, parts)))
    columns = [
        pa.chunked_array(chain.from_iterable(_chunks(part, field) for part in parts), field.type) for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _chunks(part: pa.Table, field: pa.Field) -> list[pa.Array]:
    """A part's column as a field of the whole has it."""
    place = part.schema.get_field_index(field.name)
    if place < 0:
        return [pa.nulls(len(part), field.type)]
    known, column = part.schema.field(place), part.column(place)
    if is_json(field) and not is_json(known):
        column = json_array(python_values(known, column))
    elif known.type != field.type:
        column = pa.array(column.to_pylist(), field.type, from_pandas=False)
    return list(column.chunks) if isinstance(column, pa.ChunkedArray) else [column]
