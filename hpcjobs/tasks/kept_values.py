"""Which values of a file's columns Python has no equal of, or results.parquet does not give back: found when planning.

All rows are looked at, by Arrow's own loops: a million take less than a second. What is refused here would otherwise
end a rank, or a merge after everything is computed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hpcjobs.errors import DataError
from hpcjobs.run_folder.inputs import table_sha256
from hpcjobs.run_folder.json_columns import is_json
from hpcjobs.tasks.json_limits import text_problem
from hpcjobs.tasks.plain_arrays import map_parts, plain_array, plain_field

# What is wrong with some rows of a column, else None.
Problem = Callable[[pa.Array], str | None]
_ROWS = 32_768
# What Arrow says of a value that is none of its type, unlike what it says of places outside of the file.
_OF_ONE_VALUE = re.compile("UTF8|acceptable range|whole number")


def plain(table: pa.Table, what: str) -> pa.Table:
    """The same values in plain layouts (`plain_arrays`).

    Raises a DataError, with the row, where Python has no such value; with the column, where no file of ours holds it.
    """
    fields, columns = [], []
    try:
        for field, column in zip(table.schema, table.columns, strict=True):
            fields.append(made := plain_field(field))
            columns.append(_plain_column(column, field, made, what))
    except UnicodeDecodeError as error:
        raise DataError(f"{what} cannot be read: a name in it is no UTF-8: {error}") from None
    return pa.Table.from_arrays(columns, schema=pa.schema(fields)) if fields else table


def _plain_column(column: pa.ChunkedArray, field: pa.Field, made: pa.Field, what: str) -> pa.ChunkedArray:
    name = f"{what}: column {field.name!r}"
    if why := _refused(field.type):
        raise DataError(f"{name} {why}")
    invalid = next(filter(None, map(_invalid, column.chunks)), None)
    if invalid and not _OF_ONE_VALUE.search(invalid):
        raise DataError(f"{name} is damaged: {invalid}")
    try:
        found = pa.chunked_array([plain_array(chunk, made) for chunk in column.chunks], made.type)
    except (pa.ArrowException, ValueError, IndexError) as error:
        _check(column, field, what, lambda part: _no_plain(part, made))
        raise DataError(f"{name}: {error}") from None
    _check(found, made, what, lambda part: _no_value(part, made))
    if invalid:
        raise DataError(f"{name}: {invalid}")
    return found


def check_kept(table: pa.Table, what: str) -> None:
    """A DataError where Parquet does not give a column back as it was written: later is too late."""
    for start in range(0, max(1, len(table)), _ROWS):
        part = table.slice(start, _ROWS)
        if why := _lost(part):
            for name in table.column_names:
                _check_column(part.select([name]), f"data set {what}", start)
            raise DataError(f"data set {what}: results.parquet does not give its rows back: {why}")


def _check_column(part: pa.Table, what: str, row: int) -> None:
    """A DataError where Parquet does not hold the type of the only column, or some value in it."""
    field = part.schema.field(0)
    if why := _lost(part.slice(0, 0)):
        raise DataError(f"{what}: column {field.name!r} holds {field.type}, which results.parquet cannot hold: {why}")
    _check(part.column(0), field, what, lambda rows: _lost(pa.table([rows], schema=part.schema)), row)


def _check(column: pa.ChunkedArray, field: pa.Field, what: str, problem: Problem, row: int = 0) -> None:
    for chunk in column.chunks:
        for start in range(0, len(chunk), _ROWS):
            part = chunk.slice(start, _ROWS)
            if problem(part) is not None:
                place, why = _first(part, problem)
                raise DataError(f"{what}: row {row + start + place}, column {field.name!r}: {why}")
        row += len(chunk)


def _first(array: pa.Array, problem: Problem) -> tuple[int, str]:
    """The first row with the problem, and the problem of that row alone; of all rows where no row has it alone."""
    low, high = 0, len(array)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if problem(array.slice(low, middle - low)) is not None else (middle, high)
    return low, problem(array.slice(low, 1)) or problem(array) or ""


def _types(kind: pa.DataType) -> Iterator[pa.DataType]:
    """A type and all within it."""
    yield kind
    inner = [kind.field(number).type for number in range(kind.num_fields)]
    if isinstance(kind, pa.BaseExtensionType):
        inner = [kind.storage_type]
    elif pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        inner = [kind.value_type]
    for one in inner:
        yield from _types(one)


def _refused(kind: pa.DataType) -> str | None:
    """Why no values of a type can be kept; None for the types that `plain_field` and Parquet may know."""
    for one in _types(kind):
        if pa.types.is_union(one) or pa.types.is_interval(one):
            return f"holds {kind}, which results.parquet cannot hold"
        names = [field.name for field in one] if pa.types.is_struct(one) else []
        if len(set(names)) < len(names):
            return f"has objects with the key {next(name for name in names if names.count(name) > 1)!r} twice"
        if one is not kind and getattr(one, "extension_name", "") == "arrow.uuid":
            return f"holds {kind}: the results cannot hold a uuid in lists and objects; make it a text"
    return None


def _invalid(array: pa.Array) -> str | None:
    try:
        array.validate(full=True)
    except (pa.ArrowException, IndexError) as error:
        return str(error)
    return None


def _no_plain(array: pa.Array, field: pa.Field) -> str | None:
    try:
        plain_array(array, field)
    except (pa.ArrowException, ValueError, IndexError) as error:
        return str(error)
    return None


def _no_value(array: pa.Array, field: pa.Field) -> str | None:
    """The problem of some value in rows of a plain column: `to_pylist` raises for it, or gives another one."""
    kind = array.type
    if is_json(field):
        return next(filter(None, map(text_problem, array.drop_null().to_pylist())), None)
    if pa.types.is_struct(kind):
        return _first_of(array.flatten(), list(kind))
    if pa.types.is_map(kind):
        return _first_of(list(map_parts(array)[1:]), [kind.key_field, kind.item_field])
    if pa.types.is_nested(kind):
        return _no_value(array.flatten(), kind.value_field)
    return _invalid(array) or (_no_time(array) if pa.types.is_temporal(kind) else None)


def _first_of(parts: list[pa.Array], fields: list[pa.Field]) -> str | None:
    return next(filter(None, map(_no_value, parts, fields)), None)


def _no_time(array: pa.Array) -> str | None:
    """The problem of a date, time or duration; if Python has the first and the last, it has all between."""
    kind = array.type
    places = array.view(pa.int32() if kind.bit_width == 32 else pa.int64())
    edges = pc.min_max(places).as_py()
    if edges["min"] is None:
        return None
    if pa.types.is_time(kind) and kind.unit == "ns" and np.any(np.asarray(places.drop_null()) % 1000):
        return f"{kind} with parts of a microsecond, which Python's time does not have"
    for edge in edges.values():
        try:
            value = pa.array([edge], places.type).view(kind)[0].as_py()
        except Exception as error:  # among them those of the library that knows the time zones
            return f"{edge} as {kind} is no value of Python's: {type(error).__name__}: {error}"
        if value != value:
            return f"{edge} as {kind} is no time"
    return None


def _lost(part: pa.Table) -> str | None:
    """Why rows do not come back from a Parquet file that has them as results.parquet has; None where they do."""
    columns = [pa.concat_arrays([pa.array([], column.type), *column.chunks]) for column in part.columns]
    if not columns:
        return None
    try:
        rows = pa.StructArray.from_arrays(columns, fields=list(part.schema))
        written = pa.table({"input": rows})
        content = io.BytesIO()
        pq.write_table(written, content, compression="none")
        # Not by `pq.read_table`: the threads of its scanner may outlive a short command, which then ends with SIGABRT.
        with pq.ParquetFile(pa.BufferReader(content.getbuffer()), pre_buffer=False) as file:
            found = file.read(use_threads=False)
        if found.column(0).type != rows.type:
            return f"it comes back as {found.column(0).type}"
        if not found.equals(written) and table_sha256(found.cast(written.schema)) != table_sha256(written):
            return "its values come back as others"
    except (pa.ArrowException, ValueError, OSError) as error:
        return str(error)
    return None
