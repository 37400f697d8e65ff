"""The loss curve as places on a drawing; templates/curve.svg draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hpcjobs.report.intervals import Floats
from hpcjobs.training.records import StepRecord

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 1000, 300, 64, 24, 12, 36
_TICKS = 6
# More points than the drawing has pixels are drawn as the mean of each pixel's.
_POINTS = 900


@dataclass(frozen=True)
class Mark:
    """A labelled place on an axis."""

    place: float
    label: str


@dataclass(frozen=True)
class CurveDrawing:
    """SVG path data of the training loss; the validation losses as points; both axes. `summary` says it in words."""

    width: int
    height: int
    left: int
    bottom: int
    loss: str
    held: list[tuple[float, float, str]]
    held_path: str
    steps: list[Mark]
    losses: list[Mark]
    starts: list[Mark]
    summary: str


def draw_curve(records: Sequence[StepRecord]) -> CurveDrawing | None:
    """The curve of the steps, in their order; None where fewer than two have a loss."""
    known = [record for record in records if record.loss is not None]
    if len(known) < 2:
        return None
    steps, loss = np.array([r.step for r in known], np.float64), np.array([r.loss for r in known], np.float64)
    held = [(record.step, record.eval_loss) for record in known if record.eval_loss is not None]
    low = min(float(loss.min()), *(value for _, value in held), float(loss.min()))
    high = max(float(loss.max()), *(value for _, value in held), float(loss.max()))
    room = (high - low or abs(high) or 1.0) * 0.05
    low, high = max(0.0, low - room) if low >= 0 else low - room, high + room

    def x(values: Floats) -> Floats:
        found: Floats = LEFT + (values - steps[0]) / (steps[-1] - steps[0]) * (WIDTH - LEFT - RIGHT)
        return found

    def y(values: Floats) -> Floats:
        found: Floats = TOP + (high - values) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return found

    xs, ys = _thinned(x(steps), y(loss))
    points = [
        (float(x(np.array(float(step)))), float(y(np.array(value))), f"validation loss {value:.4f} after step {step}")
        for step, value in held
    ]
    held_path = "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py, _ in points) if len(points) > 1 else ""
    path = "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in zip(xs.tolist(), ys.tolist(), strict=True))
    last = f"loss {known[0].loss:.4g} at step {known[0].step}, {known[-1].loss:.4g} at step {known[-1].step}"
    said = f"{last}; validation loss {held[-1][1]:.4g} after step {held[-1][0]}" if held else last
    return CurveDrawing(
        WIDTH, HEIGHT, LEFT, HEIGHT - BOTTOM, path, points, held_path,
        [Mark(float(x(np.array(tick))), f"{tick:g}") for tick in _round_ticks(steps[0], steps[-1], whole=True)],
        [Mark(float(y(np.array(tick))), f"{tick:.4g}") for tick in _round_ticks(low, high)],
        [Mark(float(x(np.array(float(step)))), name) for step, name in _starts(known)], said,
    )  # fmt: skip


def _thinned(xs: Floats, ys: Floats) -> tuple[Floats, Floats]:
    if len(xs) <= _POINTS:
        return xs, ys
    parts = np.array_split(np.arange(len(xs)), _POINTS)
    return np.array([xs[part].mean() for part in parts]), np.array([ys[part].mean() for part in parts])


def _round_ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Round numbers from `low` to `high`, about six."""
    rough = (high - low) / _TICKS
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    step = max(1.0, step) if whole else step
    return [float(tick) for tick in np.arange(np.ceil(low / step) * step, high + step * 1e-9, step)]


def _starts(records: Sequence[StepRecord]) -> list[tuple[int, str]]:
    """The first step of each start after the first: where a training was interrupted, and went on."""
    return [
        (after.step, f"step {after.step}: start {after.attempt}, {after.world_size} ranks")
        for before, after in pairwise(records)
        if before.attempt != after.attempt
    ]
