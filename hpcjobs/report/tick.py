"""Labelled places on an axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_TICKS = 6


@dataclass(frozen=True)
class Tick:
    """Where on the drawing, and what stands there."""

    place: float
    label: str


def round_numbers(low: float, high: float, whole: bool = False) -> list[float]:
    """Round numbers from `low` to `high`, about six; only `whole` ones where asked."""
    rough = (high - low) / _TICKS
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    step = max(1.0, step) if whole else step
    return [float(tick) for tick in np.arange(np.ceil(low / step) * step, high + step * 1e-9, step)]
