"""A union of time intervals in constant memory."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
MOST = 400


class Intervals:
    """A union of intervals (seconds). Beyond `2 * most` parts the smallest gaps are closed, down to `most` parts.

    `total` excludes the closed gaps, so it remains the time covered; it can only be too small, by what falls into a gap
    after it was closed.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most, self._closed = most, 0.0
        self._starts: list[float] = []
        self._ends: list[float] = []

    def add(self, start: float, end: float) -> None:
        """Add the interval `start`..`end`."""
        low, high = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if low < high:
            start, end = min(start, self._starts[low]), max(end, self._ends[high - 1])
        self._starts[low:high], self._ends[low:high] = [start], [end]
        if len(self._starts) > 2 * self._most:
            self._thin()

    def _thin(self) -> None:
        starts, ends = np.array(self._starts), np.array(self._ends)
        gaps = starts[1:] - ends[:-1]
        kept = np.sort(np.argpartition(-gaps, self._most - 1)[: self._most - 1])
        self._closed += float(gaps.sum() - gaps[kept].sum())
        self._starts = [self._starts[0], *starts[kept + 1].tolist()]
        self._ends = [*ends[kept].tolist(), self._ends[-1]]

    @property
    def total(self) -> float:
        """Seconds covered."""
        return max(0.0, sum(self._ends) - sum(self._starts) - self._closed)

    def array(self) -> Floats:
        """The parts in order, shape (n, 2): start and end."""
        return np.column_stack([np.array(self._starts, float), np.array(self._ends, float)])
