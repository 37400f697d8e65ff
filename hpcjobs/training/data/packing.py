"""Packing: several short samples in one row."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np

from hpcjobs.training.data.tokens import Ints


def packs(lengths: Ints, most: int, seed: int) -> list[list[int]]:
    """The samples packed into rows of at most `most` tokens: best-fit decreasing; samples of one length in an order of
    `seed`."""
    random = np.random.Generator(np.random.PCG64([seed, len(lengths)]))
    mixed = random.permutation(len(lengths))
    order: Sequence[int] = mixed[np.argsort(-lengths[mixed], kind="stable")].tolist()
    rows: list[list[int]] = []
    spaces: list[int] = []  # the different amounts of room that rows have left, sorted
    open_rows: dict[int, list[int]] = {}
    for sample in order:
        length = int(lengths[sample])
        place = bisect.bisect_left(spaces, length)
        if place == len(spaces):
            rows.append([])
            row, room = len(rows) - 1, max(most, length)
        else:
            room = spaces[place]
            row = open_rows[room].pop()
            if not open_rows[room]:
                del open_rows[room], spaces[place]
        rows[row].append(sample)
        left = room - length
        if left not in open_rows:
            open_rows[left] = []
            bisect.insort(spaces, left)
        open_rows[left].append(row)
    return rows
