"""Accuracy by the letter of the correct option, which reveals a model's preference for a letter."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from hpcjobs.metrics.bootstrap import Floats
from hpcjobs.metrics.fold import MeanFold, numbers
from hpcjobs.run_folder.metrics_file import OptionSummary, Summary

_MOST = 1000


class OptionFold(MeanFold):
    """A mean, and `by_option`: value and n of the samples whose correct option is A, B..., Z, 27..."""

    def __init__(self) -> None:
        super().__init__((0.0, 1.0))
        self._count, self._sum = np.zeros(0), np.zeros(0)

    def add(self, scores: Floats, statistics: pa.Array | None = None) -> None:
        """Add a batch of scores, with the number of each sample's correct option."""
        super().add(scores)
        if statistics is None:
            return
        right = numbers(statistics, 1)[:, 0]
        there = (right >= 0) & (right < _MOST) & ~np.isnan(scores)
        places = right[there].astype(np.int64)
        count = np.bincount(places, minlength=len(self._count))
        longer = (0, len(count) - len(self._count))
        self._count, self._sum = np.pad(self._count, longer) + count, np.pad(self._sum, longer)
        self._sum += np.bincount(places, scores[there], len(count))

    def summary(self) -> Summary:
        """The mean's summary with `by_option`."""
        pairs = zip(self._sum.tolist(), self._count.tolist(), strict=True)
        each = {letter(place): (right, int(count)) for place, (right, count) in enumerate(pairs) if count}
        by_option: dict[str, OptionSummary] = {
            name: {"value": right / count, "n": count} for name, (right, count) in each.items()
        }
        return {**super().summary(), "by_option": by_option}


def letter(place: int) -> str:
    """The name of an option: A to Z for 0 to 25, then numbers from 27."""
    return chr(ord("A") + place) if place < 26 else str(place + 1)
