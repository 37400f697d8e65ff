"""Chunks: the unit of work, fixed by data and chunk size alone, never by the number of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hpcjobs.files import create_once

# Guided self-scheduling with a fixed divisor: the last TAPER * chunk_size samples go out in ever smaller
# chunks, down to single samples, since lengths are not known beforehand and the last chunks decide the end.
TAPER = 32
MOST_CHUNKS = 16_384


def default_chunk_size(rows: int) -> int:
    """Samples a chunk where the config does not say: small enough to balance, few enough files."""
    return max(8, -(-rows // MOST_CHUNKS))


def plan_chunks(work: Sequence[int], chunk_size: int) -> list[list[int]]:
    """Samples 0..N-1 in chunks of at most `chunk_size`, longest expected work first, tapering to one.

    `work` is each sample's expected work in any unit. Source of the taper: Polychronopoulos and Kuck,
    'Guided self-scheduling', IEEE Trans. Computers 36(12), 1987.
    """
    order = sorted(range(len(work)), key=lambda index: (-work[index], index))
    chunks, start = [], 0
    while start < len(order):
        size = max(1, min(chunk_size, (len(order) - start) // TAPER))
        chunks.append(order[start : start + size])
        start += size
    return chunks


class ChunkList:
    """The chunks of one round, as they lie on disk."""

    def __init__(self, column: pa.Array) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, chunk: int) -> list[int]:
        """The sample indexes of a chunk, in the order in which they are run."""
        indexes: list[int] = self._column[chunk].as_py()
        return indexes

    def indexes(self) -> npt.NDArray[np.int64]:
        """The samples of all chunks, one chunk after the other."""
        found: npt.NDArray[np.int64] = self._column.flatten().to_numpy()
        return found

    def sizes(self) -> list[int]:
        """Samples of each chunk."""
        lengths: list[int] = self._column.value_lengths().to_pylist()
        return lengths

    @classmethod
    def read(cls, path: Path) -> ChunkList:
        with pq.ParquetFile(path) as file:  # `read_table` would import pyarrow.dataset and pandas, on every rank
            return cls(file.read().column("indexes").combine_chunks())


def write_chunks(path: Path, chunks: Sequence[Sequence[int]]) -> bool:
    """Create the chunk list of a round; False where somebody has opened this round already."""
    table = pa.table({"indexes": pa.array(chunks, pa.list_(pa.int64()))})
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    return create_once(path, buffer.getvalue().to_pybytes())
