"""Journals as Arrow tables. Lines that Arrow's JSON parser refuses are read one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from hpcjobs.run_folder.journal.journal import broken, journal_blocks, parse_line
from hpcjobs.run_folder.journal.json_lines import Others, lines_of, parse_block
from hpcjobs.run_folder.journal.record import Record

# Bytes parsed at a time.
_BLOCK = 1 << 23
# A block with a line that Arrow refuses is halved, down to this size.
_SMALL = 1 << 16
_NOTHING = pa.struct([])
_ERROR = pa.struct([("type", pa.string()), ("message", pa.string())])
_REQUIRED = {
    "index": pa.int64(), "id": pa.string(), "chunk": pa.int64(), "generation": pa.int64(), "completion": pa.string(),
    "finish_reason": pa.string(), "prompt_tokens": pa.int64(), "completion_tokens": pa.int64(), "rank": pa.int64(),
    "attempt": pa.string(), "seconds": pa.float64(), "started_at": pa.float64(),
}  # fmt: skip
_OPTIONAL = {
    "error": _ERROR, "completions": pa.list_(pa.string()), "choice_logprobs": pa.list_(pa.float64()),
    "choice_greedy": pa.list_(pa.bool_()), "choice_tokens": pa.list_(pa.int64()),
}  # fmt: skip


def journal_schema(results: pa.Schema) -> pa.Schema:
    """The Arrow schema of journal records, with the `scores` and `statistics` of the schema `results`."""
    structs = {
        name: results.field(name).type if name in results.names else _NOTHING for name in ("scores", "statistics")
    }
    return pa.schema(list({**_REQUIRED, **_OPTIONAL, **structs}.items()))


def read_columns(path: Path, schema: pa.Schema, others: Others = "error") -> Iterator[pa.Table]:
    """The records of a journal, in order, as tables of some megabytes with the given schema.

    Missing fields are null, lone surrogates are `?`. Raises the same errors as `read_journal`. With `others="ignore"`,
    fields that are not in `schema` are skipped, even those unknown to `Record`.
    """
    for offset, block in journal_blocks(path, _BLOCK):
        yield from _tables(path, offset, block, schema, others)


def _tables(path: Path, offset: int, block: bytes, schema: pa.Schema, others: Others) -> Iterator[pa.Table]:
    table = _parse(block, schema, others)
    if table is not None:
        yield table
        return
    half = block.find(b"\n", len(block) // 2) + 1
    if len(block) > _SMALL and half < len(block):
        yield from _tables(path, offset, block[:half], schema, others)
        yield from _tables(path, offset + half, block[half:], schema, others)
        return
    records = [parse_line(path, start, line) for start, line in lines_of(offset, block)]
    try:
        yield table_of(records, schema)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise broken(path, offset, error) from None


def _parse(block: bytes, schema: pa.Schema, others: Others) -> pa.Table | None:
    """A block of whole lines, parsed by Arrow; None if a line is broken or may mean something else to `Record`."""
    table = parse_block(block, schema, others)
    return table if table is not None and _nothing_is_missing(table) else None


def _nothing_is_missing(table: pa.Table) -> bool:
    error = table.column("error")
    parts = error.drop_null().flatten() if error.null_count < len(error) else []
    return not any(table.column(name).null_count for name in (*_REQUIRED, "scores")) and not any(
        part.null_count for part in parts
    )


def table_of(records: Sequence[Record], schema: pa.Schema) -> pa.Table:
    """Records as a table with the given schema, as `read_columns` makes them."""
    columns = {name: [getattr(record, name) for record in records] for name in _REQUIRED}
    columns |= {
        name: [list(getattr(record, name)) or None for record in records] for name in _OPTIONAL if name != "error"
    }
    columns["error"] = [r.error and {"type": r.error.type, "message": r.error.message} for r in records]
    columns["scores"] = [_named(r.scores, schema.field("scores").type) for r in records]
    columns["statistics"] = [_named(r.statistics, schema.field("statistics").type) or None for r in records]
    return pa.table([pa.array(storable(columns[field.name]), field.type) for field in schema], schema=schema)


def _named(values: Mapping[str, Any], kind: pa.StructType) -> dict[str, Any]:
    return {field.name: values[field.name] for field in kind if field.name in values}


def storable(value: Any) -> Any:
    """`value` (nested lists and dicts of anything) with lone surrogates replaced by `?`: UTF-8 cannot encode them."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list | tuple):
        return [storable(part) for part in value]
    return {name: storable(part) for name, part in value.items()} if isinstance(value, dict) else value
