"""verify: the results of several world sizes compared sample by sample, in flat memory."""

from __future__ import annotations

import filecmp
import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hpcjobs.errors import MergeError
from hpcjobs.run_folder.files import FILE_MODE, replace_whole, temporary_name

# What must not depend on the world size. The inputs are the same by the data's hash in the plans.
COMPARED = (
    "id", "completion", "finish_reason", "prompt_tokens", "completion_tokens", "completions", "choice_logprobs",
    "scores", "error",
)  # fmt: skip
_WINDOW = 1024


@dataclass(frozen=True)
class Mismatch:
    """A sample with other results at the world sizes `differ` than at the first one, in the columns `fields`.

    `values` holds the compared columns by world size: of the first one, and of those that differ from it.
    """

    index: int
    id: str
    differ: tuple[int, ...]
    fields: tuple[str, ...]
    values: dict[int, dict[str, Any]]


class WorldSizeComparison:
    """Several results.parquet side by side, by world size; the first one is what the others are held against.

    When `flips` is through, `samples` counts those that every file has, and `absent`, for each world size, those that
    only others have.
    """

    def __init__(self, files: Mapping[int, Path]) -> None:
        self._files = dict(files)
        self.samples, self.absent = 0, dict.fromkeys(files, 0)

    def byte_identical(self) -> bool:
        """Whether the files are the same byte for byte."""
        first, *others = self._files.values()
        return all(filecmp.cmp(first, other, shallow=False) for other in others)

    def flips(self) -> Iterator[Mismatch]:
        """The samples that differ, in input order; a MergeError names a file that cannot be compared."""
        readers = {size: _Reader(path) for size, path in self._files.items()}
        while starts := [start for reader in readers.values() if (start := reader.next_index()) is not None]:
            tables = [reader.take(min(starts) + _WINDOW) for reader in readers.values()]
            if all(table.equals(tables[0]) for table in tables[1:]):
                self.samples += len(tables[0])
            else:
                yield from self._search(tables)

    def _search(self, tables: Sequence[pa.Table]) -> Iterator[Mismatch]:
        """Row by row: only where a window is known to differ."""
        rows = [{row["index"]: row for row in table.to_pylist()} for table in tables]
        for index in sorted(set[int]().union(*rows)):
            there = {size: row[index] for size, row in zip(self.absent, rows, strict=True) if index in row}
            self.samples += len(there) == len(rows)
            for size in self.absent:
                self.absent[size] += size not in there
            if flip := _flip(there):
                yield flip


def _flip(there: Mapping[int, Mapping[str, Any]]) -> Mismatch | None:
    """How one sample's rows differ from the first of them, if they do."""
    (measure, first), *others = there.items()
    found = {size: names for size, row in others if (names := _differing(first, row))}
    if not found:
        return None
    kept = [name for name in COMPARED if name in first]
    values = {size: {name: there[size].get(name) for name in kept} for size in (measure, *found)}
    fields = tuple(name for name in COMPARED if any(name in names for names in found.values()))
    return Mismatch(first["index"], first["id"], tuple(found), fields, values)


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    pairs = {name: (one.get(name), other.get(name)) for name in COMPARED}
    return [name for name, (a, b) in pairs.items() if a != b and repr(a) != repr(b)]  # a NaN equals itself here


class _Reader:
    """The compared columns of one file, in batches, cut where the caller says."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            file = pq.ParquetFile(path)
        except pa.ArrowInvalid as error:
            raise MergeError(f"{path} is no parquet file: {error}; next: hpcjobs merge {path.parent}") from None
        columns = [name for name in ("index", *COMPARED) if name in file.schema_arrow.names]
        self._batches = file.iter_batches(_WINDOW, columns=columns)
        self._rest = file.schema_arrow.empty_table().select(columns)
        self._indexes: list[int] = []
        self._last = -1

    def next_index(self) -> int | None:
        """The index of the next row; None at the end."""
        while not self._indexes and self._read():
            pass
        return self._indexes[0] if self._indexes else None

    def take(self, stop: int) -> pa.Table:
        """The next rows whose index is below `stop`."""
        while (not self._indexes or self._indexes[-1] < stop) and self._read():
            pass
        count = bisect_left(self._indexes, stop)
        taken, self._rest, self._indexes = self._rest.slice(0, count), self._rest.slice(count), self._indexes[count:]
        return taken

    def _read(self) -> bool:
        """One more batch; False at the end."""
        batch = next(self._batches, None)
        if batch is None:
            return False
        indexes = batch.column("index").to_pylist()
        if any(later <= earlier for earlier, later in pairwise([self._last, *indexes])):
            raise MergeError(f"{self._path} is not in input order; next: hpcjobs merge {self._path.parent}")
        self._last = indexes[-1] if indexes else self._last
        self._rest = pa.concat_tables([self._rest, pa.Table.from_batches([batch])])
        self._indexes += indexes
        return True


def write_flips(path: Path, flips: Iterable[Mismatch], keep: int) -> tuple[int, list[Mismatch]]:
    """Write flips to `path`, one JSON object a line, as they come; how many, and the first `keep` of them."""
    count, kept, temporary = 0, list[Mismatch](), temporary_name(path)
    temporary.touch(mode=FILE_MODE)
    try:
        with temporary.open("w", encoding="ascii") as file:
            for flip in flips:
                file.write(json.dumps(vars(flip)) + "\n")
                count += 1
                if count <= keep:
                    kept.append(flip)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    replace_whole(temporary, path)
    return count, kept
