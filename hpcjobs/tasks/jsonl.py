"""Rows of a JSON Lines file, value for value what `json.loads` gives: by Arrow's parser where that is proved equal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from hpcjobs.errors import DataError
from hpcjobs.run_folder.journal.parse_lines import parse_block
from hpcjobs.tasks.arrow_json import has_no_json, reads_as_python
from hpcjobs.tasks.column_types import joined, rows_table, united_schema
from hpcjobs.tasks.file_names import open_bytes
from hpcjobs.tasks.json_limits import not_json

_BLOCK = 1 << 23
BOM = b"\xef\xbb\xbf"


def read_jsonl(path: Path) -> pa.Table:
    """The rows in their order; a DataError names the line that is not JSON.

    Types are those that `rows_table` finds. Arrow alone would take texts that look like dates for dates, so it is told
    the types of the blocks before; a block that it refuses then, or may read otherwise than Python, is Python's.
    """
    parts, schema, lines, rows = list[pa.Table](), pa.schema([]), 0, 0
    with open_bytes(path) as file:
        for block in _blocks(file):
            part = _by_arrow(block, schema)
            if part is None:
                part = _by_python(block, path, lines, rows)
            schema = united_schema(schema, part.schema)
            parts.append(part)
            lines, rows = lines + block.count(b"\n"), rows + len(part)
    return joined(parts, schema)


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    """Whole lines, some megabytes at a time; the last one may have no newline."""
    rest = list[bytes]()
    while block := file.read(_BLOCK):
        end = block.rfind(b"\n") + 1
        if end:
            yield b"".join([*rest, block[:end]])
            rest = []
        rest.append(block[end:])
    if last := b"".join(rest):
        yield last


def _by_arrow(block: bytes, schema: pa.Schema) -> pa.Table | None:
    """The rows of a block; None where Python may read them otherwise."""
    table = parse_block(block, schema) if len(schema) and has_no_json(schema) else None
    return table if table is not None and reads_as_python(block, table) else None


def _by_python(block: bytes, path: Path, line: int, row: int) -> pa.Table:
    """The rows of a block that stands after so many lines and rows of the file."""
    numbered = [(number, json_value(text, path, number)) for number, text in _lines(block, path, line) if text.strip()]

    def place(number: int) -> str:
        return f"{path}:{numbered[number][0]}: row {row + number}"

    return rows_table([value for _, value in numbered], place)


def _lines(block: bytes, path: Path, line: int) -> list[tuple[int, str]]:
    """The lines of a block as texts, numbered from `line` + 1."""
    if not line:
        block = block.removeprefix(BOM)
    return list(enumerate(utf8_text(block, path, line).split("\n"), start=line + 1))


def utf8_text(block: bytes, path: Path, line: int = 0) -> str:
    """The text of a block that stands after so many lines; a DataError names the line and the byte that is no UTF-8."""
    try:
        return block.decode()
    except UnicodeDecodeError as error:
        number = line + 1 + block.count(b"\n", 0, error.start)
        start = block.rfind(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{number}: not JSON: byte 0x{block[error.start]:02x} (byte {error.start - start} of the line) "
            "is no UTF-8: save the file as UTF-8"
        ) from None


def json_value(text: str, path: Path, line: int) -> Any:
    """What `json.loads` gives; a DataError names the line."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}:{line}: {not_json(error)}") from None
    except RecursionError:
        raise DataError(f"{path}:{line}: JSON nested too deep for Python") from None
