"""A buffer that cuts a stream of rows into blocks of a fixed size."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np

from hpcjobs.metrics.bootstrap import Floats


class BlockBuffer:
    """Takes rows of `width` numbers and returns blocks of `size` rows, the same however the rows were batched.

    So what is computed from the blocks is identical to the bit, whatever batches a table is read in.
    """

    def __init__(self, width: int, size: int) -> None:
        self._width, self._size, self._numbers = width, size, array("d")

    def add(self, rows: Floats) -> Iterator[Floats]:
        """Add rows, shape (n, width); yields the blocks that are now full."""
        self._numbers.frombytes(np.ascontiguousarray(rows, np.float64).tobytes())
        step = self._width * self._size
        full = len(self._numbers) // step * step
        if full:
            blocks = self._rows(full)
            del self._numbers[:full]
            yield from np.split(blocks, len(blocks) // self._size)

    def rest(self) -> Floats:
        """The rows left over, and empty the buffer."""
        rows = self._rows(len(self._numbers))
        del self._numbers[:]
        return rows

    def _rows(self, count: int) -> Floats:
        return np.array(self._numbers[:count], np.float64).reshape(-1, self._width)
