"""Rows of a CSV file: texts, as `csv.DictReader` gives them, but for the columns that `data.types` names."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path

import pyarrow as pa

from hpcjobs.assets import data_suffix
from hpcjobs.config.schema import ColumnType
from hpcjobs.errors import DataError
from hpcjobs.tasks.csv_types import csv_field, csv_values
from hpcjobs.tasks.file_names import open_bytes

DELIMITERS = {".csv": ",", ".tsv": "\t"}
# As spreadsheets and databases write: where the comma is in numbers, and elsewhere.
_OTHERS = (";", "\t", "|", ",")
_ROWS = 8192
# A row of its own behind the last one, unless a quote is never closed: then the reader takes it into the last value.
_END = "\ue000 end of the file \ue000"
_END_ROW = [_END, _END]


def read_csv(path: Path, delimiter: str | None, types: Mapping[str, ColumnType]) -> pa.Table:
    """The rows in their order; a DataError names the line that is no row or no UTF-8.

    Without a `delimiter` it is the one of the file's ending; a first line that has another one is then refused.
    """
    mark = DELIMITERS[data_suffix(path.name)] if delimiter is None else delimiter
    try:
        with _any_length(), _reader(path, mark) as reader:
            header = next(reader)
            if not header or header == _END_ROW:
                raise DataError(f"data file {path} cannot be read: its first line has no names of columns")
            if delimiter is None and len(header) == 1:
                _check_delimiter(path, header[0], mark)
            return _Columns(path, mark, header, types).read(reader)
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except csv.Error as error:
        raise DataError(f"data file {path} cannot be read: {error}") from None


def _check_delimiter(path: Path, name: str, delimiter: str) -> None:
    """Raise a DataError for a file of one column that seems to have more, told apart in another way."""
    if found := next((one for one in _OTHERS if one in name and one != delimiter), None):
        raise DataError(
            f"data file {path}: its first line has no {delimiter!r}, but {found!r}: set data.delimiter to {found!r} "
            f"(to {delimiter!r} if it is one column)"
        )


class _Columns:
    """The columns of a file, as they grow."""

    def __init__(self, path: Path, delimiter: str, header: list[str], types: Mapping[str, ColumnType]) -> None:
        self._path, self._delimiter, self._header, self._rows = path, delimiter, header, 0
        self._kinds = [types.get(name, "string") for name in header]
        self._chunks: list[list[pa.Array]] = [[] for _ in header]

    def read(self, reader: Iterator[list[str]]) -> pa.Table:
        """All rows of the reader, empty lines aside."""
        last = self._header
        while rows := list(islice(filter(None, reader), _ROWS)):
            last = rows[-1]
            self._add(rows[:-1] if last == _END_ROW else rows)
        if last != _END_ROW:
            raise self._no_row()
        fields = [csv_field(name, kind) for name, kind in zip(self._header, self._kinds, strict=True)]
        columns = [pa.chunked_array(chunks, field.type) for chunks, field in zip(self._chunks, fields, strict=True)]
        return pa.Table.from_arrays(columns, schema=pa.schema(fields))

    def _add(self, rows: Sequence[list[str]]) -> None:
        if set(map(len, rows)) - {len(self._header)}:
            raise self._no_row()
        for number, texts in enumerate(zip(*rows, strict=True)):
            made = csv_values(texts, self._kinds[number], lambda row, n=number: self._place(row, n))  # type: ignore[misc]
            self._chunks[number] += made.chunks if isinstance(made, pa.ChunkedArray) else [made]
        self._rows += len(rows)

    def _place(self, row: int, column: int) -> str:
        return f"{self._path}: row {self._rows + row}, column {self._header[column]!r}"

    def _no_row(self) -> DataError:
        """Names the first line that begins a row of too many or too few values, or one that never ends."""
        width = len(self._header)
        with _reader(self._path, self._delimiter) as reader:
            line = 1
            for row in reader:
                if row and row[-1].endswith(_END) and row != _END_ROW:
                    return self._error(f"line {line} opens a quote that is never closed")
                if row and len(row) != width:
                    return self._error(f"line {line} has {len(row)} values, and the header {width}")
                line = reader.line_num + 1  # type: ignore[attr-defined]
        raise AssertionError("all rows are whole")

    def _error(self, what: str) -> DataError:
        return DataError(f"data file {self._path} cannot be read: {what}")


@contextmanager
def _reader(path: Path, delimiter: str) -> Iterator[Iterator[list[str]]]:
    with open_bytes(path) as file:
        lines = chain(io.TextIOWrapper(file, "utf-8-sig", newline=""), [delimiter.join(_END_ROW)])
        yield csv.reader(lines, delimiter=delimiter)


@contextmanager
def _any_length() -> Iterator[None]:
    """Python's csv refuses values above 128 KiB unless it is told otherwise, for the whole process."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _not_utf8(path: Path) -> DataError:
    offset = 0
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return DataError(
                    f"{path}:{number}: byte 0x{line[error.start]:02x}, byte {offset + error.start} of the file, is no "
                    "UTF-8: save it as UTF-8 (spreadsheets often write Latin-1 or Windows-1252)"
                )
            offset += len(line)
    raise AssertionError("the file is UTF-8")
