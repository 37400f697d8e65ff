"""Chunks: the unit of work. They depend on data and chunk size only, never on the number of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hpcjobs.run_folder.files import create_once

Ints = npt.NDArray[np.int64]
# Guided self-scheduling with a fixed divisor: the last TAPER * chunk_size samples are in ever smaller chunks, down to
# single samples, because lengths are not known beforehand and the last chunks decide when the run ends. For large
# data, which thousands of ranks may share, the taper starts earlier and ends at a small part of a chunk.
TAPER, MOST_TAPER, ROWS_A_TAPER, SMALLEST = 32, 8192, 1220, 48
_CHUNKS_READ = 512
# A key in the file's metadata: in the same file as the chunks, so that both are there at once or not at all.
_AGAIN = b"hpcjobs.again"
MOST_CHUNKS = 16_384


def default_chunk_size(rows: int) -> int:
    """Samples per chunk if the config does not set it: small enough to balance, with few enough files."""
    return max(8, -(-rows // MOST_CHUNKS))


def plan_chunks(work: Sequence[int] | Ints, chunk_size: int) -> list[Ints]:
    """Samples 0..N-1 in chunks of at most `chunk_size`, longest expected work first, tapering at the end.

    `work` is the expected work of each sample, in any unit. Source of the taper: Polychronopoulos and Kuck, 'Guided
    self-scheduling', IEEE Trans. Computers 36(12), 1987.
    """
    order = np.argsort(-np.asarray(work, np.int64), kind="stable")
    taper, smallest = max(TAPER, min(MOST_TAPER, len(order) // ROWS_A_TAPER)), max(1, chunk_size // SMALLEST)
    chunks, start = [], 0
    while start < len(order):
        size = max(smallest, min(chunk_size, (len(order) - start) // taper))
        chunks.append(order[start : start + size])
        start += size
    return chunks


class ChunkList:
    """The chunks of one round. Chunk c has the samples `indexes[starts[c] : starts[c + 1]]`."""

    def __init__(self, indexes: npt.NDArray[np.integer[Any]], starts: Ints) -> None:
        self.indexes, self.starts = indexes, starts

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, chunk: int) -> list[int]:
        """The sample indexes of a chunk, in the order in which they run."""
        chunk = range(len(self))[chunk]
        indexes: list[int] = self.indexes[self.starts[chunk] : self.starts[chunk + 1]].tolist()
        return indexes

    def sizes(self) -> list[int]:
        """The number of samples of each chunk."""
        sizes: list[int] = np.diff(self.starts).tolist()
        return sizes

    @classmethod
    def read(cls, path: Path) -> ChunkList:
        """The chunk list in a file, as int32 where possible: each of thousands of ranks holds a copy."""
        parts, sizes = list[npt.NDArray[np.integer[Any]]](), [np.zeros(1, np.int64)]
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_CHUNKS_READ, columns=["indexes"], use_threads=False):
                column = batch.column("indexes")
                indexes = column.flatten().to_numpy()
                small = len(indexes) == 0 or indexes.max() < 1 << 31
                parts.append(indexes.astype(np.int32) if small else indexes.copy())
                sizes.append(column.value_lengths().to_numpy())
        return cls(np.concatenate(parts) if parts else np.empty(0, np.int64), np.cumsum(np.concatenate(sizes)))


def read_sizes(path: Path) -> list[int]:
    """The number of samples of each chunk of a round, without reading the indexes if the file has a `size` column."""
    with pq.ParquetFile(path) as file:
        if "size" in file.schema_arrow.names:
            sizes: list[int] = file.read(columns=["size"]).column("size").to_pylist()
            return sizes
    return ChunkList.read(path).sizes()


def runs_again(path: Path) -> bool:
    """Whether the round with this chunk list replaces what earlier rounds have of its samples."""
    return _AGAIN in (pq.read_schema(path).metadata or {})


def write_chunks(path: Path, chunks: Sequence[Sequence[int] | Ints], again: bool = False) -> bool:
    """Create the chunk list of a round; False if somebody has opened this round already.

    With `again`, earlier records of these samples do not count from now on.
    """
    starts = np.cumsum([0, *map(len, chunks)])
    indexes = np.concatenate([np.empty(0, np.int64), *(np.asarray(chunk, np.int64) for chunk in chunks)])
    column = pa.ListArray.from_arrays(pa.array(starts, pa.int32()), pa.array(indexes))
    buffer = pa.BufferOutputStream()
    table = pa.table({"size": pa.array(np.diff(starts), pa.int64()), "indexes": column})
    table = table.replace_schema_metadata({_AGAIN: b"1"} if again else None)
    pq.write_table(table, buffer, compression="zstd", row_group_size=_CHUNKS_READ)
    return create_once(path, buffer.getvalue().to_pybytes())
