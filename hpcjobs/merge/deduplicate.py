"""Choose among accepted records: one per sample, in input order."""

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
    """The fields that identify a record; the others are compared too."""

    index: int
    id: str
    source: int


def choose(found: pa.RecordBatch, ids: pa.ChunkedArray, first: int, tally: Tally) -> Ints:
    """The positions in `found` of the chosen records, ordered by index. `ids` are those of the rows from `first` on.

    One record per sample, from the first journal (`source`). A repeated line counts once. A journal with two different
    lines for a sample, or a foreign id, does not count for it; that of a later round may.
    """
    index: Ints = found.column("index").to_numpy()
    order: Ints = np.argsort(index, kind="stable")
    index = index[order]
    right = pc.equal(found.column("id").take(pa.array(order)), ids.take(pa.array(index - first)))
    suspect = ~np.asarray(right.to_numpy(), np.bool_)
    twice = index[1:] == index[:-1]
    suspect[1:] |= twice
    suspect[:-1] |= twice
    if not suspect.any():
        return order
    places = np.flatnonzero(suspect)
    rows = found.take(pa.array(order[places])).to_pylist()
    right_ids = ids.take(pa.array(index[places] - first)).to_pylist()
    counting = ~suspect
    counting[places[np.array(_choose_one_by_one(rows, right_ids, tally), np.int64)]] = True
    return order[counting]


def _choose_one_by_one(rows: Sequence[_Found], ids: Sequence[str], tally: Tally) -> list[int]:
    """The numbers of the chosen rows, among samples with duplicates or foreign ids."""
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
