"""Which samples each step trains on: it depends on seed, epoch and data only, not on the number of ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hpcjobs.training.data.packing import packs
from hpcjobs.training.data.tokens import Ints

# Samples are sorted by length within this many global batches: batches get similar lengths, and the order stays mixed.
_SORTED_BATCHES = 50


@dataclass(frozen=True)
class Ordering:
    """How samples become global batches of `batch` units. `pack` is the most tokens of a packed row; None without
    packing. Units of more tokens than `border` share no micro batch with others (`engines.lengths.position_border`).
    """

    seed: int
    batch: int
    pack: int | None = None
    by_length: bool = False
    border: int | None = None


class BatchOrder:
    """The endless sequence of global batches, over samples with the given lengths (tokens).

    A unit is one row of a batch: a sample, or several packed ones. Epochs follow each other without a gap, so every
    batch is full, and the last batch of a run may begin another epoch.
    """

    def __init__(self, lengths: Ints, ordering: Ordering) -> None:
        self._ordering = ordering
        count = len(lengths)
        alone = [[number] for number in range(count)]
        self.units = alone if ordering.pack is None else packs(lengths, ordering.pack, ordering.seed)
        self._lengths = np.array([int(lengths[unit].sum()) for unit in self.units], np.int64)
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def steps(self, epochs: float) -> int:
        """How many batches `epochs` passes over the units take; the last one is filled up."""
        return max(1, math.ceil(round(epochs * len(self.units) / self._ordering.batch, 9)))

    def epoch(self, step: int) -> float:
        """How many epochs are done after `step` steps."""
        return step * self._ordering.batch / len(self.units)

    def batch(self, step: int) -> list[int]:
        """The units of step `step` (0, 1, ...), longest first."""
        size, count = self._ordering.batch, len(self.units)
        places = range(step * size, (step + 1) * size)
        found = [int(self._epoch(place // count)[place % count]) for place in places]
        return sorted(found, key=lambda unit: -int(self._lengths[unit]))

    def share(self, step: int, share: Share) -> list[list[list[int]]]:
        """The micro batches of one rank in a step: lists of units, each a list of samples.

        The batch is cut into micro batches from long to short, which are dealt to the ranks in turn, so that those that
        run at the same time have similar lengths. Each rank has as many; one beside a border may be empty.
        """
        parts = rounds(self.batch(step), self._lengths, share.world * share.micro, self._ordering.border)
        return [[self.units[unit] for unit in part[share.rank :: share.world]] for part in parts]

    def samples(self, step: int) -> list[int]:
        """All samples of a step."""
        return [sample for unit in self.batch(step) for sample in self.units[unit]]

    def _shuffled(self, epoch: int) -> Ints:
        random = np.random.Generator(np.random.PCG64([self._ordering.seed, epoch]))
        order: Ints = random.permutation(len(self.units)).astype(np.int64)
        if not self._ordering.by_length:
            return order
        size, width = self._ordering.batch, self._ordering.batch * _SORTED_BATCHES
        parts = [order[start : start + width] for start in range(0, len(order), width)]
        mixed = np.concatenate([part[np.argsort(-self._lengths[part], kind="stable")] for part in parts])
        whole = len(mixed) // size
        batches = mixed[: whole * size].reshape(whole, size)
        return np.concatenate([batches[random.permutation(whole)].ravel(), mixed[whole * size :]])


def rounds(units: Sequence[int], lengths: Ints, width: int, border: int | None) -> list[list[int]]:
    """Units, longest first, cut into parts of at most `width`. None has units on both sides of the border."""
    long = 0 if border is None else int((lengths[list(units)] > border).sum())
    sides = list(units[:long]), list(units[long:])
    return [side[start : start + width] for side in sides for start in range(0, len(side), width)]


@dataclass(frozen=True)
class Share:
    """Which rank of how many, and the most units that it runs at once."""

    rank: int
    world: int
    micro: int
