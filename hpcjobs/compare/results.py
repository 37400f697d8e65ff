"""A results.parquet, read in batches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hpcjobs.errors import MergeError

_BATCH = 8192
_KEYS = ("index", "id")


class Results:
    """A results.parquet, read in batches. Raises a MergeError if it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path, self._stamp = path, _stamp(path)
        with self._readable(), pq.ParquetFile(path) as file:
            self.schema, self.rows = file.schema_arrow, file.metadata.num_rows
        for name in _KEYS:
            if name not in self.schema.names:
                raise MergeError(f"{path} has no column {name!r}; next: hpcjobs merge {path.parent}")

    @property
    def metrics(self) -> list[str]:
        """The metrics in its scores."""
        return [each.name for each in self.schema.field("scores").type] if "scores" in self.schema.names else []

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows in the file's order, in batches: `index`, `id` and those of `columns` that exist."""
        names = self._names(columns)
        with self._readable(), pq.ParquetFile(self.path) as file:
            if _stamp(self.path) != self._stamp:  # a merge or a score in between: what was counted is of other rows
                raise MergeError(f"{self.path} has been replaced while it was read: type the command again")
            # Group by group: pyarrow holds some buffers of every row group that one iterator is to read.
            groups = (file.iter_batches(_BATCH, [n], columns=names) for n in range(file.num_row_groups))
            for batch in chain.from_iterable(groups):
                for name in _KEYS:
                    if batch.column(name).null_count:
                        raise MergeError(f"{self.path} has rows without {name}; next: hpcjobs merge {self.path.parent}")
                yield pa.Table.from_batches([batch]).select(names).cast(self._schema(names))

    def all(self, columns: Sequence[str]) -> pa.Table:
        """All rows at once."""
        return pa.concat_tables([self.empty(columns), *self.batches(columns)]).combine_chunks()

    def empty(self, columns: Sequence[str]) -> pa.Table:
        """A table without rows."""
        return self._schema(self._names(columns)).empty_table()

    def _names(self, columns: Sequence[str]) -> list[str]:
        return [name for name in dict.fromkeys((*_KEYS, *columns)) if name in self.schema.names]

    def _schema(self, names: Sequence[str]) -> pa.Schema:
        """The schema with 64-bit text offsets: all texts of a column together may exceed 2 GB."""
        wide = {"index": pa.int64(), "id": pa.large_string(), "completion": pa.large_string()}
        return pa.schema([(name, wide.get(name, self.schema.field(name).type)) for name in names])

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError) as error:  # parquet's readers raise either for bytes that are no table
            raise MergeError(f"{self.path} cannot be read: {error}; next: hpcjobs merge {self.path.parent}") from None


def _stamp(path: Path) -> tuple[int, int, int]:
    """Identifies a file, so that a replaced one is detected."""
    facts = path.stat()
    return facts.st_ino, facts.st_size, facts.st_mtime_ns
