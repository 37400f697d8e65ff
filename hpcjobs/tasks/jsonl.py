"""Rows of a JSON Lines file as a table: by Arrow's parser, where it gives what Python's values would."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from hpcjobs.errors import DataError
from hpcjobs.run_folder.journal.json_lines import lines_of, one_object_a_line

_BLOCK, _PART = 1 << 23, 1 << 20


def read_jsonl(path: Path) -> pa.Table:
    """The rows in their order; a DataError names the line that is not JSON or the column that holds several types.

    The types are those that `rows_table` finds. Arrow alone would take texts that look like dates for dates, so it is
    told the types of the blocks before, and a block that it refuses then is read by Python.
    """
    parts, schema = list[pa.Table](), pa.schema([])
    for block in _blocks(path):
        part = _by_arrow(block, schema) if len(schema) else None
        part = _by_python(block, path) if part is None else part
        merged = None if part is None else _together(schema, part.schema)
        if part is None or merged is None:
            return rows_table(list(_json_lines(path)), path)  # which says what is wrong, or finds a type for all rows
        parts.append(part)
        schema = merged
    return pa.concat_tables([schema.empty_table(), *parts], promote_options="default")


def _blocks(path: Path) -> Iterator[bytes]:
    """Whole lines, some megabytes at a time; the last one may have no newline."""
    rest = b""
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            end = block.rfind(b"\n") + 1
            if end:
                yield rest + block[:end]
                rest = b""
            rest += block[end:]
    if rest:
        yield rest


def _by_arrow(block: bytes, schema: pa.Schema) -> pa.Table | None:
    import pyarrow.json as pj

    try:
        if not block.isascii():
            block.decode()
        options = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
        table = pj.read_json(pa.BufferReader(block), pj.ReadOptions(block_size=_PART), options)
    except (pa.ArrowException, UnicodeDecodeError):
        return None
    return table.select(schema.names) if one_object_a_line(block, len(table)) else None


def _by_python(block: bytes, path: Path) -> pa.Table | None:
    """The rows of a block; None where they cannot be had of it alone."""
    try:
        rows = [json.loads(line) for _, line in lines_of(0, block + b"\n") if line.strip()]
        table = rows_table(rows, path)
    except (ValueError, DataError):
        return None
    return table if len(table) == len(rows) else None  # a table without a column has no rows


def _together(known: pa.Schema, found: pa.Schema) -> pa.Schema | None:
    """The columns of both; None where one has two types, of which neither is that of nulls."""
    try:
        return pa.unify_schemas([known, found], promote_options="default")
    except pa.ArrowException:
        return None


def _json_lines(path: Path) -> Iterator[Any]:
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}:{number}: not JSON: {error}") from None


def rows_table(rows: Sequence[Any], path: Path) -> pa.Table:
    """Rows as Python reads them, as a table; a DataError where one is no object, or a column holds several types."""
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{path}: row {number} is {type(row).__name__}, not an object")
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {}
    for name in names:
        try:
            columns[name] = pa.array([row.get(name) for row in rows], from_pandas=False)
        except (pa.ArrowException, UnicodeEncodeError) as error:
            raise DataError(f"{path}: column {name!r} does not hold one type in all rows: {error}") from None
    return pa.table(columns)
