"""Two results.parquet side by side: the samples that both have, paired by id."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hpcjobs.errors import MergeError

Places = npt.NDArray[np.int64]
Pair = tuple[pa.Table, pa.Table]
_WINDOW = 8192
_KEYS = ("index", "id")


class Results:
    """One results.parquet, whose rows are read in batches; a MergeError where it cannot be."""

    def __init__(self, path: Path) -> None:
        self.path, self._stamp = path, _stamp(path)
        with self._readable(), pq.ParquetFile(path) as file:
            self.schema, self.rows = file.schema_arrow, file.metadata.num_rows
        for name in _KEYS:
            if name not in self.schema.names:
                raise MergeError(f"{path} has no column {name!r}; next: hpcjobs merge {path.parent}")

    @property
    def metrics(self) -> list[str]:
        """The metrics that its samples have scores of."""
        return [each.name for each in self.schema.field("scores").type] if "scores" in self.schema.names else []

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows in the file's order, some thousands at a time: `index`, `id` and those of `columns` it has."""
        names = [name for name in (*_KEYS, *columns) if name in self.schema.names]
        with self._readable(), pq.ParquetFile(self.path) as file:
            if _stamp(self.path) != self._stamp:  # a merge or a score in between: what was counted is of other rows
                raise MergeError(f"{self.path} has been replaced while it was read: type the command again")
            # Group by group: pyarrow holds some buffers of every row group that one iterator is to read.
            groups = (file.iter_batches(_WINDOW, [n], columns=names) for n in range(file.num_row_groups))
            for batch in chain.from_iterable(groups):
                for name in _KEYS:
                    if batch.column(name).null_count:
                        raise MergeError(f"{self.path} has rows without {name}; next: hpcjobs merge {self.path.parent}")
                yield pa.Table.from_batches([batch]).select(names).cast(self._schema(names))

    def all(self, columns: Sequence[str]) -> pa.Table:
        """All rows at once."""
        empty = self.schema.empty_table().select([n for n in (*_KEYS, *columns) if n in self.schema.names])
        parts = list(self.batches(columns)) or [empty.cast(self._schema(empty.column_names))]
        return pa.concat_tables(parts).combine_chunks()

    def _schema(self, names: Sequence[str]) -> pa.Schema:
        """Texts with 64-bit offsets: a column of them may be larger than 2 GB when it is held as a whole."""
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
    """What tells a file from one that has taken its name."""
    facts = path.stat()
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


class Pairs:
    """The rows of two results with the same id.

    `common` samples are in both, `only_a` and `only_b` in one. `in_order`: they come in the same order, and both
    files are read side by side in flat memory; else the columns asked for of `b` are held in memory and joined by id.
    `same_data`: both are of the same inputs, so that an index says which id.
    """

    def __init__(self, a: Results, b: Results, same_data: bool = False) -> None:
        self.a, self.b, self._same_data = a, b, same_data
        self.common = self.only_a = self.only_b = 0
        self._places: Places = np.empty(0, np.int64)
        self.in_order = self._aligned()
        if not self.in_order:
            self._join()

    def tables(self, columns: Sequence[str]) -> Iterator[Pair]:
        """The common rows of A and of B, row by row the same sample, some thousands at a time, in A's order."""
        for pair in self._walk(columns) if self.in_order else self._joined(columns):
            if len(pair[0]):
                yield pair

    def _aligned(self) -> bool:
        """Whether equal indexes are equal ids, and no other index has an id of both; counts on the way."""
        for one, other in self._windows(()):
            first, second = _same_index(one, other)
            if not one.column("id").take(first).equals(other.column("id").take(second)):
                return False
            self.common += len(first)
            self.only_a += len(one) - len(first)
            self.only_b += len(other) - len(second)
        return self._same_data or not (self.only_a and self.only_b) or self._disjoint()

    def _disjoint(self) -> bool:
        """Whether no id that stands at an index of one alone is another index's id in the other."""
        ids = [pc.unique(results.all(()).column("id")) for results in (self.a, self.b)]
        return int(pc.sum(pc.is_in(ids[0], ids[1])).as_py() or 0) == self.common

    def _walk(self, columns: Sequence[str]) -> Iterator[Pair]:
        for one, other in self._windows(columns):
            first, second = _same_index(one, other)
            yield _rows(one, first), _rows(other, second)

    def _windows(self, columns: Sequence[str]) -> Iterator[Pair]:
        """Both files cut at the same indexes."""
        readers = [_Reader(results, columns) for results in (self.a, self.b)]
        while starts := [start for reader in readers if (start := reader.next_index()) is not None]:
            one, other = (reader.take(min(starts) + _WINDOW) for reader in readers)
            yield one, other

    def _join(self) -> None:
        """For each row of A the row of B with its id, or -1."""
        ids = [_ids(results) for results in (self.a, self.b)]
        found = pc.fill_null(pc.index_in(ids[0], value_set=ids[1]), -1)
        self._places = np.asarray(found.to_numpy(), np.int64)
        self.common = int((self._places >= 0).sum())
        self.only_a, self.only_b = len(ids[0]) - self.common, len(ids[1]) - self.common

    def _joined(self, columns: Sequence[str]) -> Iterator[Pair]:
        held, start = self.b.all(columns), 0
        for table in self.a.batches(columns):
            places = self._places[start : start + len(table)]
            start += len(table)
            yield table.filter(pa.array(places >= 0)), held.take(pa.array(places[places >= 0]))


class _Reader:
    """The rows of one file in input order, cut where the caller says."""

    def __init__(self, results: Results, columns: Sequence[str]) -> None:
        self._path, self._batches = results.path, results.batches(columns)
        self._rest: pa.Table | None = None
        self._indexes: Places = np.empty(0, np.int64)
        self._last = -1

    def next_index(self) -> int | None:
        """The index of the next row; None at the end."""
        while not len(self._indexes) and self._read():
            pass
        return int(self._indexes[0]) if len(self._indexes) else None

    def take(self, stop: int) -> pa.Table:
        """The next rows whose index is below `stop`."""
        while (not len(self._indexes) or self._indexes[-1] < stop) and self._read():
            pass
        if self._rest is None:  # not one row in the file
            return pa.table({"index": pa.array([], pa.int64()), "id": pa.array([], pa.large_string())})
        count = int(np.searchsorted(self._indexes, stop))
        taken, self._rest, self._indexes = self._rest.slice(0, count), self._rest.slice(count), self._indexes[count:]
        return taken

    def _read(self) -> bool:
        """One more batch; False at the end."""
        batch = next(self._batches, None)
        if batch is None:
            return False
        indexes = batch.column("index").to_numpy()
        if (np.diff(indexes, prepend=self._last) <= 0).any():
            raise MergeError(f"{self._path} is not in input order; next: hpcjobs merge {self._path.parent}")
        self._last = int(indexes[-1]) if len(indexes) else self._last
        self._rest = batch if self._rest is None else pa.concat_tables([self._rest, batch])
        self._indexes = np.concatenate([self._indexes, indexes])
        return True


def _same_index(one: pa.Table, other: pa.Table) -> tuple[Places, Places]:
    """Where the indexes that both have stand in each."""
    a, b = (table.column("index").to_numpy() for table in (one, other))
    _, first, second = np.intersect1d(a, b, assume_unique=True, return_indices=True)
    return first, second


def _rows(table: pa.Table, places: Places) -> pa.Table:
    return table if len(places) == len(table) else table.take(pa.array(places))


def _ids(results: Results) -> pa.ChunkedArray:
    """All ids of one file; a MergeError where one stands twice."""
    ids = results.all(()).column("id")
    if len(pc.unique(ids)) != len(ids):
        twice = next(entry["values"] for entry in pc.value_counts(ids).to_pylist() if entry["counts"] > 1)
        raise MergeError(f"{results.path}: id {twice!r} stands twice; next: hpcjobs merge {results.path.parent}")
    return ids
