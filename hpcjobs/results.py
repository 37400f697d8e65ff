"""results.parquet: one row an accepted sample, in input order; the same bytes for any number of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from hpcjobs.files import replace_whole, temporary_name
from hpcjobs.records import Record

_ERROR = pa.struct([("type", pa.string()), ("message", pa.string())])


def schema_of(metrics: Sequence[str], inputs: pa.Schema) -> pa.Schema:
    """The columns: what was asked (`input`), what came, its scores. Who made it stays in the journals."""
    fields = [
        ("index", pa.int64()), ("id", pa.string()), ("completion", pa.string()), ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int64()), ("completion_tokens", pa.int64()),
    ]  # fmt: skip
    if metrics:
        fields.append(("scores", pa.struct([(name, pa.float64()) for name in metrics])))
    fields.append(("error", _ERROR))
    asked = [field for field in inputs if field.name not in ("index", "id")]
    if asked:
        fields.append(("input", pa.struct(asked)))
    return pa.schema(fields)


def rows_of(records: Sequence[Record], asked: pa.Table, schema: pa.Schema) -> pa.Table:
    """Records and the input rows of the same samples as a table."""
    columns = {
        "index": [r.index for r in records],
        "id": [r.id for r in records],
        "completion": [storable(r.completion) for r in records],
        "finish_reason": [r.finish_reason for r in records],
        "prompt_tokens": [r.prompt_tokens for r in records],
        "completion_tokens": [r.completion_tokens for r in records],
        "scores": [dict(r.scores) for r in records],
        "error": [r.error and {"type": r.error.type, "message": storable(r.error.message)} for r in records],
    }
    arrays = [pa.array(columns[field.name], field.type) for field in schema if field.name != "input"]
    if "input" in schema.names:
        names = [field.name for field in schema.field("input").type]
        parts = [asked.column(name).combine_chunks() for name in names]
        arrays.append(
            pa.StructArray.from_arrays([_one(part) for part in parts], fields=list(schema.field("input").type))
        )
    return pa.Table.from_arrays(arrays, schema=schema)


def _one(part: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(part, pa.ChunkedArray):
        return pa.concat_arrays(part.chunks) if part.num_chunks else pa.array([], part.type)
    return part


def storable(text: str) -> str:
    """`text` without lone surrogates, which no UTF-8 file can hold; the journal has them exactly."""
    return text.encode("utf-8", "replace").decode("utf-8") if not text.isascii() else text


class ResultsWriter:
    """Writes the table batch by batch to a temporary file, and to its name when all is well."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path, self._temporary, self.schema = path, temporary_name(path), schema
        self._writer = pq.ParquetWriter(self._temporary, schema, compression="zstd")
        self._temporary.chmod(0o600)

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table)

    def __enter__(self) -> ResultsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        if kind:
            self._temporary.unlink(missing_ok=True)
        else:
            replace_whole(self._temporary, self._path)
