"""results.parquet: one row an accepted sample, in input order; the same bytes for any number of ranks."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hpcjobs.config import TaskConfig
from hpcjobs.disk import disk_errors
from hpcjobs.files import FILE_MODE, replace_whole, temporary_name, write_all
from hpcjobs.metrics import Metric
from hpcjobs.records import Record

_ERROR = pa.struct([("type", pa.string()), ("message", pa.string())])


def schema_of(metrics: Sequence[Metric], inputs: pa.Schema, task: TaskConfig | None = None) -> pa.Schema:
    """The columns: what was asked (`input`), what came, its scores. Who made it stays in the journals."""
    fields = [
        ("index", pa.int64()), ("id", pa.string()), ("completion", pa.string()), ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int64()), ("completion_tokens", pa.int64()),
    ]  # fmt: skip
    fields += _extra_fields(task or TaskConfig())
    if metrics:
        fields.append(("scores", pa.struct([(metric.name, pa.float64()) for metric in metrics])))
    folded = [(metric.name, kind) for metric in metrics if (kind := getattr(metric, "statistics", None)) is not None]
    if folded:
        fields.append(("statistics", pa.struct(folded)))
    fields.append(("error", _ERROR))
    asked = [field for field in inputs if field.name not in ("index", "id")]
    if asked:
        fields.append(("input", pa.struct(asked)))
    return pa.schema(fields)


def _extra_fields(task: TaskConfig) -> list[tuple[str, pa.DataType]]:
    """What only some tasks have: several answers a prompt, or the log-likelihoods of options."""
    likelihoods = [
        ("choice_logprobs", pa.list_(pa.float64())), ("choice_greedy", pa.list_(pa.bool_())),
        ("choice_tokens", pa.list_(pa.int64())),
    ]  # fmt: skip
    texts = [("completions", pa.list_(pa.string()))]
    return {
        "generate": texts if task.repeats > 1 else [], "choice": likelihoods, "perplexity": likelihoods,
        "lm_eval": [*texts, *likelihoods],
    }[task.type]  # fmt: skip


def rows_of(records: Sequence[Record], asked: pa.Table, schema: pa.Schema) -> pa.Table:
    """Records and the input rows of the same samples as a table."""
    columns = {
        "index": [r.index for r in records],
        "id": [r.id for r in records],
        "completion": [storable(r.completion) for r in records],
        "finish_reason": [r.finish_reason for r in records],
        "prompt_tokens": [r.prompt_tokens for r in records],
        "completion_tokens": [r.completion_tokens for r in records],
        "completions": [[storable(text) for text in r.completions] for r in records],
        "choice_logprobs": [list(r.choice_logprobs) for r in records],
        "choice_greedy": [list(r.choice_greedy) for r in records],
        "choice_tokens": [list(r.choice_tokens) for r in records],
        "scores": [dict(r.scores) for r in records],
        "statistics": [{name: _stored(value) for name, value in r.statistics.items()} for r in records],
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


def _stored(statistics: Sequence[float | None] | str) -> Sequence[float | None] | str:
    return storable(statistics) if isinstance(statistics, str) else list(statistics)


class _Sink(io.RawIOBase):
    """A new file for a library to write to; once given up it takes everything, so that the library can be closed."""

    def __init__(self, handle: int) -> None:
        self._handle, self.given_up = handle, False

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if not self.given_up:
            write_all(self._handle, data)
        return len(data)

    def sync(self) -> None:
        """Have it all on the disk; some network file systems tell only now that they are full."""
        os.fsync(self._handle)

    def close(self) -> None:
        if not self.closed:
            os.close(self._handle)
        super().close()


class ResultsWriter:
    """Writes the table batch by batch to a temporary file, and to its name when all is well."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path, self._temporary, self.schema = path, temporary_name(path), schema
        with disk_errors(path):
            self._sink = _Sink(os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE))
            try:
                self._writer = pq.ParquetWriter(self._sink, schema, compression="zstd")
            except BaseException:
                self._give_up()
                raise

    def write(self, table: pa.Table) -> None:
        with disk_errors(self._path, table.nbytes):
            self._writer.write_table(table)

    def _finish(self) -> None:
        with disk_errors(self._path):
            self._writer.close()
            self._sink.sync()
            self._sink.close()

    def _give_up(self) -> None:
        self._sink.given_up = True
        with contextlib.suppress(Exception):  # a writer that has failed once may say so again
            self._writer.close()
        self._sink.close()
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> ResultsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind:
            return self._give_up()
        try:
            self._finish()
        except BaseException:
            self._give_up()
            raise
        replace_whole(self._temporary, self._path)
        return None
