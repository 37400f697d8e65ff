"""The time axis: seconds since the first start, with long pauses folded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcjobs.report.intervals import Floats, Intervals
from hpcjobs.report.text import duration

_TICKS = 6

_STEPS = (
    0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400,
    172800, 432000, 864000,
)  # fmt: skip
_PAUSE = 0.25
_FOLD = 36.0
_TICKS = 8
_LABEL = 55.0


@dataclass(frozen=True)
class FoldedPause:
    """A pause that is drawn as a narrow strip x..x+width."""

    x: float
    width: float
    label: str


class Axis:
    """Maps Unix seconds to x in left..left+width, piecewise linearly.

    `alive` has the (start, end) rows in which any rank ran. Pauses longer than a quarter of the total running time are
    folded, so that a resume on the next day does not shrink the work to a line.
    """

    def __init__(self, alive: Floats, left: float, width: float) -> None:
        self.left, self.width = left, width
        self._spans = _spans(alive)
        shown = float((self._spans[:, 1] - self._spans[:, 0]).sum())
        fold = min(_FOLD, 0.3 * width / max(1, len(self._spans) - 1))
        scale = (width - fold * (len(self._spans) - 1)) / shown
        lengths = np.column_stack([(self._spans[:, 1] - self._spans[:, 0]) * scale, np.full(len(self._spans), fold)])
        self._knots_t = self._spans.ravel()
        self._knots_x = left + np.concatenate([[0.0], np.cumsum(lengths.ravel()[:-1])])
        self.shown = shown

    def x(self, times: Floats) -> Floats:
        """The positions of `times` (any shape)."""
        found: Floats = np.interp(times, self._knots_t, self._knots_x)
        return found

    def edges(self, bins: int) -> tuple[Floats, Floats]:
        """The borders of `bins` strips of equal width: their x, and their times."""
        x = np.linspace(self.left, self.left + self.width, bins + 1)
        return x, np.interp(x, self._knots_x, self._knots_t)

    @property
    def folds(self) -> list[FoldedPause]:
        """The pauses that are not drawn to scale."""
        pairs = zip(self._spans[:-1, 1], self._spans[1:, 0], strict=True)
        places = self._knots_x[1:-1].reshape(-1, 2)
        return [
            FoldedPause(float(x[0]), float(x[1] - x[0]), f"{duration(float(end - start))} in which nothing ran")
            for (start, end), x in zip(pairs, places, strict=True)
        ]

    @property
    def ticks(self) -> list[Tick]:
        """Labels: time since the first start. After a folded pause the first label says so, and the others count from
        it.
        """
        step = next((step for step in _STEPS if self.shown / step <= _TICKS), _STEPS[-1])
        unit = "s" if self.shown <= 300 else "min" if self.shown <= 10_800 else "h" if self.shown <= 259_200 else "d"
        ticks: list[Tick] = []
        for start, end in self._spans:
            for offset in np.arange(0.0, end - start + step * 1e-6, step):
                place = float(self.x(np.array(start + offset)))
                if not offset:  # where a span begins is worth more than the last round number before it
                    ticks = [tick for tick in ticks if place - tick.place >= _LABEL]
                if not ticks or place - ticks[-1].place >= _LABEL:
                    ticks.append(Tick(place, self._label(float(start), float(offset), unit)))
        return ticks

    def _label(self, start: float, offset: float, unit: str) -> str:
        since = start - float(self._spans[0, 0])
        if since and not offset:
            return duration(since)
        number = offset / {"s": 1, "min": 60, "h": 3600, "d": 86400}[unit]
        return f"{'+' if since else ''}{number:.3g} {unit}"


def _spans(alive: Floats) -> Floats:
    """The times drawn to scale: `alive` with short pauses filled, at least 0.1 s long."""
    union = Intervals()
    for start, end in alive.tolist():
        union.add(start, end)
    parts = union.array() if len(alive) else np.zeros((1, 2))
    parts[-1, 1] = max(parts[-1, 1], parts[-1, 0] + 0.1)
    pauses = parts[1:, 0] - parts[:-1, 1]
    long = np.flatnonzero(pauses > _PAUSE * (parts[:, 1] - parts[:, 0]).sum())
    return np.column_stack([parts[np.append(0, long + 1), 0], parts[np.append(long, len(parts) - 1), 1]])


@dataclass(frozen=True)
class Tick:
    """A label and its position."""

    place: float
    label: str


def round_numbers(low: float, high: float, whole: bool = False) -> list[float]:
    """About six round numbers from `low` to `high`; integers with `whole`."""
    rough = (high - low) / _TICKS
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    step = max(1.0, step) if whole else step
    return [float(tick) for tick in np.arange(np.ceil(low / step) * step, high + step * 1e-9, step)]
