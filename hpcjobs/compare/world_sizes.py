"""verify: compare the results of several world sizes sample by sample, in constant memory."""

from __future__ import annotations

import filecmp
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from hpcjobs.compare.excerpt import excerpt, first_difference
from hpcjobs.compare.reader import Reader
from hpcjobs.compare.results import Results
from hpcjobs.requests import Row
from hpcjobs.run_folder.inputs import row_index

# What must not depend on the world size. The inputs are the same by the data's hash in the plans.
COMPARED = (
    "id", "completion", "finish_reason", "prompt_tokens", "completion_tokens", "completions", "choice_logprobs",
    "scores", "error", "metric_errors",
)  # fmt: skip
_WINDOW = 1024


@dataclass(frozen=True)
class Mismatch:
    """A sample whose results at the world sizes `differ` are not those of the first one, in the columns `fields`.

    `values` has the compared columns by world size: the first one and those that differ.
    """

    index: int
    id: str
    differ: tuple[int, ...]
    fields: tuple[str, ...]
    values: dict[int, dict[str, object]]

    def line(self) -> str:
        """The mismatch as one line of JSON."""
        return json.dumps(vars(self))

    def lines(self) -> Iterator[str]:
        """The mismatch as text: each column that differs, at the first world size and at those that differ."""
        first = next(iter(self.values))
        yield f"{self.id!r} (index {self.index}): at {', '.join(map(str, self.differ))} not as at {first}"
        for name in self.fields:
            found = {size: row[name] for size, row in self.values.items()}
            place = first_difference([value for value in found.values() if isinstance(value, str)] or [""])
            for size, value in found.items():
                text = excerpt(value, place) if isinstance(value, str) else repr(value)
                yield f"  {name:<17} {size:>4}: {text}"


class WorldSizeComparison:
    """Several results.parquet by world size; the others are compared with the first.

    Once `flips` is exhausted, `samples` counts the samples in every file, and `absent` those missing at each world
    size.
    """

    def __init__(self, files: Mapping[int, Path]) -> None:
        self._files = dict(files)
        self.samples, self.absent = 0, dict.fromkeys(files, 0)

    def byte_identical(self) -> bool:
        """Whether the files are identical byte for byte."""
        first, *others = self._files.values()
        return all(filecmp.cmp(first, other, shallow=False) for other in others)

    def flips(self) -> Iterator[Mismatch]:
        """The samples that differ, in input order. Raises a MergeError for a file that cannot be compared."""
        readers = [Reader(Results(path), COMPARED) for path in self._files.values()]
        while starts := [start for reader in readers if (start := reader.next_index()) is not None]:
            tables = [reader.take(min(starts) + _WINDOW) for reader in readers]
            if all(table.equals(tables[0]) for table in tables[1:]):
                self.samples += len(tables[0])
            else:
                yield from self._search(tables)

    def _search(self, tables: Sequence[pa.Table]) -> Iterator[Mismatch]:
        """Compare row by row, in a window that is known to differ."""
        rows = [{row["index"]: row for row in table.to_pylist()} for table in tables]
        for index in sorted(set[int]().union(*rows)):
            there = {size: row[index] for size, row in zip(self.absent, rows, strict=True) if index in row}
            self.samples += len(there) == len(rows)
            for size in self.absent:
                self.absent[size] += size not in there
            if flip := _flip(there):
                yield flip


def _flip(there: Mapping[int, Row]) -> Mismatch | None:
    """How a sample's rows differ from the first of them; None if they do not."""
    (measure, first), *others = there.items()
    found = {size: names for size, row in others if (names := _differing(first, row))}
    if not found:
        return None
    kept = [name for name in COMPARED if name in first]
    values = {size: {name: there[size].get(name) for name in kept} for size in (measure, *found)}
    fields = tuple(name for name in COMPARED if any(name in names for names in found.values()))
    return Mismatch(row_index(first), str(first["id"]), tuple(found), fields, values)


def _differing(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    pairs = {name: (one.get(name), other.get(name)) for name in COMPARED}
    return [name for name, (a, b) in pairs.items() if a != b and repr(a) != repr(b)]  # a NaN equals itself here
