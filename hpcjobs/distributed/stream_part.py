"""One rank's part of a stream of torch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch.utils.data import IterableDataset


class StreamPart(IterableDataset[Any]):
    """Items r, r+W, r+2W... of an IterableDataset, read as they come. Every rank reads the whole stream."""

    def __init__(self, whole: IterableDataset[object], rank: int, world: int) -> None:
        self.whole, self.rank, self.world = whole, rank, world

    def __iter__(self) -> Iterator[Any]:
        """This rank's items."""
        return islice(iter(self.whole), self.rank, None, self.world)
