"""Rows of Parquet and Arrow files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hpcjobs.errors import DataError
from hpcjobs.run_folder.json_columns import is_json

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


def roomy(table: pa.Table) -> pa.Table:
    """The table, long text columns with 64-bit places: what is put together from them may be longer than 2 GiB."""
    for number, field in enumerate(table.schema):
        column = table.column(number)
        if pa.types.is_string(field.type) and column.nbytes > _LONG:
            table = table.set_column(number, field.with_type(pa.large_string()), column.cast(pa.large_string()))
    return table


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
