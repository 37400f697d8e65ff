"""The choice among accepted records: one a sample, in input order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hpcjobs.merge.tally import Tally

Ints = npt.NDArray[np.int64]


class _Found(TypedDict):
    """What tells two records of a sample apart; their other fields are compared, too."""

    index: int
    id: str
    source: int


def choose(found: pa.RecordBatch, ids: pa.ChunkedArray, first: int, tally: Tally) -> Ints:
    """The places in `found` of the records that count, by index; `ids` are those of the rows from `first` on.

    One record a sample, the first journal's (`source`). A line that stands twice counts once. A journal with two
    lines that differ, or a foreign id, does not count for this sample; a later round's may.
    """
    index: Ints = found.column("index").to_numpy()
    order: Ints = np.argsort(index, kind="stable")
    index = index[order]
    right = pc.equal(found.column("id").take(pa.array(order)), ids.take(pa.array(index - first)))
    odd = ~np.asarray(right.to_numpy(), np.bool_)
    twice = index[1:] == index[:-1]
    odd[1:] |= twice
    odd[:-1] |= twice
    if not odd.any():
        return order
    places = np.flatnonzero(odd)
    rows = found.take(pa.array(order[places])).to_pylist()
    right_ids = ids.take(pa.array(index[places] - first)).to_pylist()
    counting = ~odd
    counting[places[np.array(_choose_one_by_one(rows, right_ids, tally), np.int64)]] = True
    return order[counting]


def _choose_one_by_one(rows: Sequence[_Found], ids: Sequence[str], tally: Tally) -> list[int]:
    """The numbers of the rows that count, where something is the matter with each of their samples."""
    chosen, wrong = dict[int, int](), set[tuple[int, int]]()
    for number, (row, right_id) in enumerate(zip(rows, ids, strict=True)):
        index, source = row["index"], (row["index"], row["source"])
        other = rows[chosen[index]] if index in chosen else None
        tally.duplicates += other is not None
        if other and other["source"] != row["source"]:
            continue
        tally.foreign += row["id"] != right_id
        if problem := _problem(row, other, right_id):
            tally.problems[index] = problem
            chosen.pop(index, None)
            wrong.add(source)
        elif source not in wrong:
            chosen.setdefault(index, number)
    return list(chosen.values())


def _problem(row: _Found, other: _Found | None, right_id: str) -> str | None:
    if row["id"] != right_id:
        return f"its record has the foreign id {row['id']!r}"
    return "its journal has two records that differ" if other not in (None, row) else None
