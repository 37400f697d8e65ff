"""Sort accepted records by input order in constant memory: one Arrow file per range of indexes."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hpcjobs.run_folder.files import new_folder, temporary_name

# Limits per bucket and for the number of files, which are open at the same time; most systems allow 1,024.
MOST_ROWS, MOST_BYTES, MOST_FILES = 1 << 17, 1 << 25, 400
# Bytes buffered in memory before writing, so that each file gets many rows at a time.
_BUFFER_BYTES = 1 << 25
_BUFFER = 1 << 16


class Spill:
    """Buckets of `bucket` rows of journal columns; a single bucket stays in memory.

    Several buckets are files in a hidden folder in `folder`: uncompressed Arrow streams, since they are read once and
    soon.
    """

    def __init__(self, folder: Path, rows: int, schema: pa.Schema, bucket: int) -> None:
        self._bucket, self.schema = bucket, schema
        self._count = max(1, -(-rows // bucket))
        self._buffer: list[pa.Table] = []
        self._bytes = 0
        self._folder = temporary_name(folder / "merge") if self._count > 1 else None
        if self._folder:
            new_folder(self._folder)
        self._files: dict[int, tuple[pa.NativeFile, pa.RecordBatchWriter]] = {}

    def add(self, table: pa.Table) -> None:
        """Add rows."""
        self._buffer.append(table)
        self._bytes += table.nbytes
        if self._folder and self._bytes > _BUFFER_BYTES:
            self._write()

    def _write(self) -> None:
        buffered, self._buffer, self._bytes = self._one(self._buffer), [], 0
        number = buffered.column("index").to_numpy() // self._bucket
        order = np.argsort(_small(number), kind="stable")
        batch, number = buffered.take(pa.array(order)), number[order]
        edges = [0, *(np.flatnonzero(number[1:] != number[:-1]) + 1).tolist(), len(number)]
        for start, stop in pairwise(edges):
            if start < stop:
                self._writer(int(number[start])).write_batch(batch.slice(start, stop - start))

    def _writer(self, number: int) -> pa.RecordBatchWriter:
        if number not in self._files:
            assert self._folder
            file = pa.BufferedOutputStream(pa.OSFile(str(self._folder / str(number)), "wb"), _BUFFER)
            self._files[number] = file, pa.ipc.new_stream(file, self.schema)
        return self._files[number][1]

    def buckets(self, rows: int) -> Iterator[tuple[range, pa.RecordBatch]]:
        """(index range, its rows in the order of `add`) of each bucket, in input order, once.

        Each bucket's file is removed when it is read.
        """
        if self._folder and self._buffer:
            self._write()
        for number in range(self._count):
            yield range(number * self._bucket, min(rows, (number + 1) * self._bucket)), self._read(number)

    def _read(self, number: int) -> pa.RecordBatch:
        if self._folder is None:
            return self._one(self._buffer)
        if number not in self._files:
            return self._one([])
        for part in reversed(self._files.pop(number)):
            part.close()
        path = self._folder / str(number)
        with pa.OSFile(str(path)) as file:
            table = pa.ipc.open_stream(file).read_all()
        path.unlink()
        return self._one([table])

    def _one(self, tables: list[pa.Table]) -> pa.RecordBatch:
        """All rows together."""
        batches = pa.concat_tables([self.schema.empty_table(), *tables]).combine_chunks().to_batches()
        return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=self.schema)

    def __enter__(self) -> Spill:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file, _ in self._files.values():
            with contextlib.suppress(OSError):  # a full disk refuses the rest again
                file.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def _small(number: npt.NDArray[np.int64]) -> npt.NDArray[np.int16] | npt.NDArray[np.int64]:
    """The numbers as int16 if they fit: NumPy sorts those in linear time."""
    return number.astype(np.int16) if len(number) and number.max() < 1 << 15 else number
