"""The input rows of a run on disk: written in small batches, read by row or range."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from hpcjobs.requests import Row
from hpcjobs.run_folder.json_columns import python_rows, python_values

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

# The user's own columns `index` and `id` are kept with the prefix `source_`; a column that already has such a name
# gets one more.
OWN_COLUMN = re.compile(r"(source_)*(index|id)")

_ROWS_A_BATCH = 4096


class Inputs:
    """The rows in a run's `inputs/`, by row or range without reading the rest.

    The file is memory-mapped, which is best for single rows. To read all rows use `streamed`: mapped pages count as the
    process's memory.
    """

    def __init__(self, path: Path) -> None:
        self._open(pa.memory_map(str(path)))

    @classmethod
    def streamed(cls, path: Path) -> Inputs:
        """Inputs read from the file range by range, without a memory map."""
        inputs = cls.__new__(cls)
        inputs._open(pa.OSFile(str(path)))
        return inputs

    def _open(self, file: pa.NativeFile) -> None:
        """Reads two batches only: all but the last have as many rows as the first (`table_parts`)."""
        self._reader = pa.ipc.open_file(file)
        count = self._reader.num_record_batches
        self._size = self._reader.get_batch(0).num_rows if count else 1
        self._len = (count - 1) * self._size + self._reader.get_batch(count - 1).num_rows if count else 0

    def __len__(self) -> int:
        return self._len

    @property
    def columns(self) -> list[str]:
        """The names of all columns, `index` and `id` included."""
        return list(self.schema.names)

    def __getitem__(self, index: int) -> Row:
        """One row, with `index` and `id`. Raises an IndexError."""
        if not 0 <= index < self._len:
            raise IndexError(f"row {index} of {self._len}")
        batch, place = divmod(index, self._size)
        return python_rows(self._reader.get_batch(batch).slice(place, 1))[0]

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the rows."""
        return self._reader.schema

    def rows(self, start: int, stop: int) -> pa.Table:
        """Rows start..stop-1 as a table."""
        parts = []
        for number in range(start // self._size, -(-min(stop, self._len) // self._size)):
            low, high = max(start - number * self._size, 0), min(stop - number * self._size, self._size)
            parts.append(self._reader.get_batch(number).slice(low, high - low))
        return pa.Table.from_batches(parts, schema=self._reader.schema)

    def values(self, name: str) -> list[object]:
        """One column of all rows."""
        batches = (self._reader.get_batch(number) for number in range(self._reader.num_record_batches))
        field = self.schema.field(name)
        return [value for batch in batches for value in python_values(field, batch.column(name))]

    def ids(self, start: int, stop: int) -> list[str]:
        """The ids of rows start..stop-1."""
        found: list[str] = self.rows(start, stop).column("id").to_pylist()
        return found


def table_parts(table: pa.Table) -> Iterator[memoryview]:
    """The table as an Arrow file, in parts: record batches of equal size, except the last."""
    sink = _Parts()
    table = table.unify_dictionaries()
    with pa.ipc.new_file(pa.PythonFile(sink, "w"), table.schema) as writer:
        for start in range(0, len(table), _ROWS_A_BATCH):
            writer.write_table(_canonical_table(table.slice(start, _ROWS_A_BATCH)))
            yield from sink.taken()
    yield from sink.taken()


def _canonical_table(part: pa.Table) -> pa.Table:
    """The rows in one chunk, whose bytes depend on the values only, not on chunks and what is below nulls."""
    taken = part.take(_all(part)).combine_chunks()
    for number, field in enumerate(taken.schema):
        if pa.types.is_nested(field.type) and len(taken):
            taken = taken.set_column(number, field, _canonical(taken.column(number).chunk(0)))
    return taken


def _all(rows: pa.Table | pa.Array) -> pa.Array:
    return pa.array(range(len(rows)), pa.int64())


def _canonical(column: pa.Array) -> pa.Array:
    """A column rebuilt row by row, with nulls inside null objects, and nothing below them."""
    kind = column.type
    if pa.types.is_struct(kind) and len(list(kind)):
        inner = [part.take(_all(part)) if column.null_count else part for part in column.flatten()]
        parts = [_canonical(part) for part in inner]
        return pa.StructArray.from_arrays(parts, fields=list(kind), mask=column.is_null())
    lists = pa.LargeListArray if pa.types.is_large_list(kind) else pa.ListArray
    if (pa.types.is_list(kind) or lists is pa.LargeListArray) and not column.offset:
        return lists.from_arrays(column.offsets, _canonical(column.values), type=kind, mask=column.is_null())
    return column


def table_sha256(table: pa.Table) -> str:
    """The SHA-256 of the file that `table_parts` makes."""
    content = hashlib.sha256()
    for part in table_parts(table):
        content.update(part)
    return content.hexdigest()


class _Parts(io.RawIOBase):
    """A file object whose content is taken away while it is written."""

    def __init__(self) -> None:
        self._content = io.BytesIO()

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer) -> int:
        return self._content.write(data)

    def taken(self) -> Iterator[memoryview]:
        """What was written since the last time, where it is some."""
        content, self._content = self._content, io.BytesIO()
        if content.tell():
            yield content.getbuffer()


def row_index(row: Row) -> int:
    """The `index` of a row of inputs/."""
    index = row["index"]
    if not isinstance(index, int):
        raise TypeError(f"index {index!r} of a row is no number")
    return index


def user_row(row: Row) -> dict[str, object]:
    """A row as templates see it: with the user's own `index` and `id`, if the data has them."""
    return {_shown(name): value for name, value in row.items()}  # the user's own come later and win


def user_columns(names: Iterable[str]) -> list[str]:
    """The names of a table's columns as templates see them."""
    return list(dict.fromkeys(_shown(name) for name in names))


def _shown(name: str) -> str:
    return name.removeprefix("source_") if OWN_COLUMN.fullmatch(name) else name
