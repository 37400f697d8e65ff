"""Flips: samples on which a binary metric differs between two runs."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypedDict, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hpcjobs.compare.excerpt import excerpt, first_difference
from hpcjobs.compare.pairs import Pairs
from hpcjobs.metrics.bootstrap import Floats
from hpcjobs.run_folder.disk import disk_errors
from hpcjobs.run_folder.files import FILE_MODE, replace_whole, temporary_name

_SHOWN = ("completion", "scores", "error")
_LINE_BYTES = 1000
T = TypeVar("T")


class FlipRow(TypedDict, total=False):
    """The row of a flipped sample in one of the runs."""

    index: int
    completion: str | None
    scores: dict[str, float | None] | None
    error: dict[str, str] | None


@dataclass(frozen=True)
class Flip:
    """A sample whose score changed from 1 to 0 in the metrics `lost`, or from 0 to 1 in `gained`.

    `a` and `b` have index, completion, scores and error in the two runs.
    """

    id: str
    lost: tuple[str, ...]
    gained: tuple[str, ...]
    a: FlipRow
    b: FlipRow

    def line(self) -> str:
        """The flip as one line of JSON; scores that are not finite are null."""
        return json.dumps(vars(self) | {"a": _clean(self.a), "b": _clean(self.b)}, allow_nan=False)

    def lines(self) -> Iterator[str]:
        """The flip as text: the metrics that changed, and both completions."""
        changes = [f"{name} 1 -> 0" for name in self.lost] + [f"{name} 0 -> 1" for name in self.gained]
        yield f"{self.id!r}: {', '.join(changes)}"
        texts = [str(row["completion"] or "") for row in (self.a, self.b)]
        place = first_difference(texts)
        for letter, text, row in zip("AB", texts, (self.a, self.b), strict=True):
            yield f"  {letter}: {excerpt(text, place)}{_error(row)}"


def scores(table: pa.Table, metric: str) -> Floats:
    """The scores of one metric in a table of results, shape (n,); NaN where there is none."""
    column = table.column("scores")
    values = pc.struct_field(column, [column.type.get_field_index(metric)])
    return np.asarray(values.cast(pa.float64()).to_numpy(), np.float64)


def find_flips(pairs: Pairs, metrics: Collection[str]) -> Iterator[Flip]:
    """The flips of binary `metrics`, in A's order."""
    for tables in pairs.tables(_SHOWN):
        change = {name: scores(tables[1], name) - scores(tables[0], name) for name in metrics}
        flipped = [np.abs(values) == 1 for values in change.values()]
        places = np.flatnonzero(np.logical_or.reduce(flipped, axis=0))
        rows = (table.take(pa.array(places)).to_pylist() for table in tables)
        for place, a, b in zip(places, *rows, strict=True):
            lost = tuple(name for name, values in change.items() if values[place] == -1)
            gained = tuple(name for name, values in change.items() if values[place] == 1)
            b.pop("id")
            yield Flip(a.pop("id"), lost, gained, a, b)


class JsonLine(Protocol):
    """Something that can be written as one line of JSON."""

    def line(self) -> str:
        """The line, without its newline."""
        ...


def write_flips(path: Path, flips: Iterable[JsonLine], next_command: str = "the same command again") -> int:
    """Write the flips to `path`, one JSON object per line, as they come; returns their number.

    Raises a DiskFullError that names `next_command`; an older file is kept.
    """
    count, temporary = 0, temporary_name(path)
    with disk_errors(path, need=_LINE_BYTES, next_command=next_command):
        temporary.touch(mode=FILE_MODE)
        try:
            with temporary.open("w", encoding="ascii") as file:
                for flip in flips:
                    file.write(f"{flip.line()}\n")
                    count += 1
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        replace_whole(temporary, path)
    return count


def keep_first(flips: Iterable[T], most: int, kept: list[T]) -> Iterator[T]:
    """Yield the flips, and add the first `most` to `kept`."""
    for flip in flips:
        if len(kept) < most:
            kept.append(flip)
        yield flip


def _error(row: FlipRow) -> str:
    error = row.get("error")
    return f"  error {error['type']}: {error['message']!r}" if error else ""


def _clean(row: FlipRow) -> dict[str, object]:
    there = (row["scores"] or {}).items()
    finite = {name: value if value is not None and math.isfinite(value) else None for name, value in there}
    return {**row, "scores": finite}
