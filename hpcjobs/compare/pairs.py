"""Pair the samples of two results.parquet by id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hpcjobs.compare.reader import Places, Reader
from hpcjobs.compare.results import Results
from hpcjobs.errors import MergeError

Pair = tuple[pa.Table, pa.Table]
_WINDOW = 8192


class Pairs:
    """The rows of two results with the same id.

    `common` samples are in both, `only_a` and `only_b` in one. With `in_order` both files are read side by side in
    constant memory; otherwise the columns of `b` are loaded into memory and joined by id. `same_data`: both have the
    same inputs, so equal indexes are equal ids.
    """

    def __init__(self, a: Results, b: Results, same_data: bool = False) -> None:
        self.a, self.b, self._same_data = a, b, same_data
        self.common = self.only_a = self.only_b = 0
        self._places: Places = np.empty(0, np.int64)
        self.in_order = self._aligned()
        if not self.in_order:
            self._join()

    def tables(self, columns: Sequence[str]) -> Iterator[Pair]:
        """The common rows of A and of B, row by row the same sample, in batches in A's order."""
        for pair in self._walk(columns) if self.in_order else self._joined(columns):
            if len(pair[0]):
                yield pair

    def _aligned(self) -> bool:
        """Count the pairs by index. True if equal indexes have equal ids, and no id is at different indexes."""
        for one, other in self._windows(()):
            first, second = _same_index(one, other)
            if not one.column("id").take(first).equals(other.column("id").take(second)):
                return False
            self.common += len(first)
            self.only_a += len(one) - len(first)
            self.only_b += len(other) - len(second)
        return self._same_data or not (self.only_a and self.only_b) or self._disjoint()

    def _disjoint(self) -> bool:
        """Whether no id of A is at another index in B."""
        ids = [pc.unique(results.all(()).column("id")) for results in (self.a, self.b)]
        return int(pc.sum(pc.is_in(ids[0], ids[1])).as_py() or 0) == self.common

    def _walk(self, columns: Sequence[str]) -> Iterator[Pair]:
        for one, other in self._windows(columns):
            first, second = _same_index(one, other)
            yield _rows(one, first), _rows(other, second)

    def _windows(self, columns: Sequence[str]) -> Iterator[Pair]:
        """Both files cut at the same indexes."""
        readers = [Reader(results, columns) for results in (self.a, self.b)]
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
        rows_of_b, start = self.b.all(columns), 0
        for table in self.a.batches(columns):
            places = self._places[start : start + len(table)]
            start += len(table)
            yield table.filter(pa.array(places >= 0)), rows_of_b.take(pa.array(places[places >= 0]))


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
