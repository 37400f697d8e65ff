"""results.parquet: one row per accepted sample, in input order; the same bytes for any number of ranks."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NotRequired, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from hpcjobs.config import TaskConfig
from hpcjobs.metrics import Metric
from hpcjobs.run_folder.disk import disk_errors
from hpcjobs.run_folder.files import FileTransaction, open_file, replace_whole, temporary_name, write_all
from hpcjobs.run_folder.journal.table import JOURNAL_TYPES

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

# Rows per row group, by index: fixed, so that the bytes depend on the rows only.
ROW_GROUP = 32_768
_ERROR = JOURNAL_TYPES["error"]
_ALWAYS = ("index", "id", "completion", "finish_reason", "prompt_tokens", "completion_tokens")
_LIKELIHOODS = ("choice_logprobs", "choice_greedy", "choice_tokens")


class ResultRow(TypedDict):
    """A row of results.parquet, with the columns needed to score it again."""

    index: int
    completion: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    error: dict[str, str] | None
    completions: NotRequired[list[str] | None]
    choice_logprobs: NotRequired[list[float | None] | None]
    choice_greedy: NotRequired[list[bool]]
    choice_tokens: NotRequired[list[int]]


def schema_of(metrics: Sequence[Metric], inputs: pa.Schema, task: TaskConfig | None = None) -> pa.Schema:
    """The columns of results.parquet: input row (`input`), answer and scores. Which rank made it stays in the journals.
    """
    names = (*_ALWAYS, *_extra_columns(task or TaskConfig()))
    fields = [(name, JOURNAL_TYPES[name]) for name in names]
    if metrics:
        fields.append(("scores", pa.struct([(metric.name, pa.float64()) for metric in metrics])))
    folded = [(metric.name, kind) for metric in metrics if (kind := getattr(metric, "statistics", None)) is not None]
    if folded:
        fields.append(("statistics", pa.struct(folded)))
    fields.append(("error", _ERROR))
    if metrics:
        fields.append(("metric_errors", JOURNAL_TYPES["metric_errors"]))
    input_fields = [field for field in inputs if field.name not in ("index", "id")]
    if input_fields:
        fields.append(("input", pa.struct(input_fields)))
    return pa.schema(fields)


def _extra_columns(task: TaskConfig) -> Sequence[str]:
    """Columns that only some task types have: several answers, or log-likelihoods."""
    texts = ("completions",)
    return {
        "generate": texts if task.repeats > 1 else (), "choice": _LIKELIHOODS, "perplexity": _LIKELIHOODS,
        "lm_eval": texts + _LIKELIHOODS,
    }[task.type]  # fmt: skip


def rows_of(found: pa.Table, inputs: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table of results from journal columns (`journal_schema`) and the input rows of the same samples."""
    arrays = [_column(found.column(field.name), field.type) for field in schema if field.name != "input"]
    if "input" in schema.names:
        fields = list(schema.field("input").type)
        parts = [_one(inputs.column(field.name)) for field in fields]
        arrays.append(pa.StructArray.from_arrays(parts, fields=fields))
    return pa.Table.from_arrays(arrays, schema=schema)


def _column(found: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    """A column of journals; missing lists and statistics become empty instead of null."""
    column = _one(found)
    if not column.null_count or kind == _ERROR:
        return column
    if pa.types.is_list(kind):
        return pa.ListArray.from_arrays(column.offsets, column.values, type=kind)
    return pa.StructArray.from_arrays(column.flatten(), fields=list(kind)) if pa.types.is_struct(kind) else column


def _one(part: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(part.chunks) if part.num_chunks else pa.array([], part.type)


class _Sink(io.RawIOBase):
    """A new file for a library to write to. Once given up it ignores writes, so that the library can be closed."""

    def __init__(self, handle: int) -> None:
        self._handle, self.given_up = handle, False

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer) -> int:
        if not self.given_up:
            write_all(self._handle, memoryview(data))
        return memoryview(data).nbytes

    def sync(self) -> None:
        """Have it all on the disk; some network file systems tell only now that they are full."""
        os.fsync(self._handle)

    def close(self) -> None:
        if not self.closed:
            os.close(self._handle)
        super().close()


class ResultsWriter:
    """Writes the table in batches to a temporary file.

    If nothing failed, it becomes one of `files`, or is renamed at the end.
    """

    def __init__(self, path: Path, schema: pa.Schema, files: FileTransaction | None = None) -> None:
        self._path, self._temporary, self.schema, self._files = path, temporary_name(path), schema, files
        with disk_errors(path):
            self._sink = _Sink(open_file(self._temporary, os.O_WRONLY | os.O_EXCL))
            try:
                self._writer = pq.ParquetWriter(self._sink, schema, compression="zstd")
            except BaseException:
                self._give_up()
                raise

    def write(self, table: pa.Table) -> None:
        """Write a batch. Raises a DiskFullError."""
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
        if self._files:
            self._files.add(self._temporary, self._path)
        else:
            replace_whole(self._temporary, self._path)
        return None
