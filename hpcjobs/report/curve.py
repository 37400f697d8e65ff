"""Loss curves as places on a drawing; templates/curve.svg draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hpcjobs.report.axis import Tick, round_numbers
from hpcjobs.report.intervals import Floats
from hpcjobs.training.steps import StepRecord

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 1000, 300, 64, 24, 12, 36
# More points than the drawing has pixels are drawn as the mean of each pixel's.
_POINTS = 900


@dataclass(frozen=True)
class CurveLine:
    """One training: SVG path data of its loss, its validation losses as points (x, y, words) and as a path.

    `name` is A or B where there are two, else ''. `summary` says it in words.
    """

    name: str
    loss: str
    held: list[tuple[float, float, str]]
    held_path: str
    summary: str


@dataclass(frozen=True, kw_only=True)
class CurveDrawing:
    """The lines of one or two trainings on the same axes; `starts` is where one alone was started again."""

    width: int
    height: int
    left: int
    bottom: int
    lines: list[CurveLine]
    steps: list[Tick]
    losses: list[Tick]
    starts: list[Tick]

    @property
    def summary(self) -> str:
        """All lines in words."""
        return "; ".join(f"{line.name}: {line.summary}" if line.name else line.summary for line in self.lines)


class _Plane:
    """Where steps and losses are on the drawing, so that all of them are on it."""

    def __init__(self, records: Sequence[StepRecord]) -> None:
        values = [record.loss for record in records]
        values += [record.eval_loss for record in records if record.eval_loss is not None]
        low, high = min(values), max(values)
        room = (high - low or abs(high) or 1.0) * 0.05
        self.low, self.high = max(0.0, low - room) if low >= 0 else low - room, high + room
        self.first, self.last = min(record.step for record in records), max(record.step for record in records)

    def x(self, step: float) -> float:
        return LEFT + (step - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)

    def y(self, loss: float) -> float:
        return TOP + (self.high - loss) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)


def draw_curve(records: Sequence[StepRecord]) -> CurveDrawing | None:
    """The curve of a training's steps, in their order; None where fewer than two have a loss."""
    return _draw({"": records})


def draw_both(a: Sequence[StepRecord], b: Sequence[StepRecord]) -> CurveDrawing | None:
    """The curves of two trainings in one picture; None where neither has two steps with a loss."""
    return _draw({"A": a, "B": b})


def _draw(runs: dict[str, Sequence[StepRecord]]) -> CurveDrawing | None:
    shown = {name: known for name, records in runs.items() if len(known := _known(records)) > 1}
    if not shown:
        return None
    plane = _Plane([record for records in shown.values() for record in records])
    starts = [start for name, records in shown.items() if not name for start in _starts(records)]
    return CurveDrawing(
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        bottom=HEIGHT - BOTTOM,
        lines=[_line(name, records, plane) for name, records in shown.items()],
        steps=[Tick(plane.x(tick), f"{tick:g}") for tick in round_numbers(plane.first, plane.last, whole=True)],
        losses=[Tick(plane.y(tick), f"{tick:.4g}") for tick in round_numbers(plane.low, plane.high)],
        starts=[Tick(plane.x(step), name) for step, name in starts],
    )


def _known(records: Sequence[StepRecord]) -> list[StepRecord]:
    return [record for record in records if record.loss is not None]


def _line(name: str, records: Sequence[StepRecord], plane: _Plane) -> CurveLine:
    xs = np.array([plane.x(record.step) for record in records])
    ys = np.array([plane.y(record.loss) for record in records])
    held = [(record.step, record.eval_loss) for record in records if record.eval_loss is not None]
    points = [
        (plane.x(step), plane.y(value), f"{name} validation loss {value:.4f} after step {step}".strip())
        for step, value in held
    ]
    first, last = records[0], records[-1]
    said = f"loss {first.loss:.4g} at step {first.step}, {last.loss:.4g} at step {last.step}"
    said += f"; validation loss {held[-1][1]:.4g} after step {held[-1][0]}" if held else ""
    held_path = _path([(x, y) for x, y, _ in points]) if len(points) > 1 else ""
    return CurveLine(name, _path(list(zip(*_thinned(xs, ys), strict=True))), points, held_path, said)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _thinned(xs: Floats, ys: Floats) -> tuple[list[float], list[float]]:
    if len(xs) <= _POINTS:
        return xs.tolist(), ys.tolist()
    parts = np.array_split(np.arange(len(xs)), _POINTS)
    return [float(xs[part].mean()) for part in parts], [float(ys[part].mean()) for part in parts]


def _starts(records: Sequence[StepRecord]) -> list[tuple[int, str]]:
    """The first step of each start after the first: where a training was interrupted, and went on."""
    return [
        (after.step, f"step {after.step}: start {after.attempt}, {after.world_size} ranks")
        for before, after in pairwise(records)
        if before.attempt != after.attempt
    ]
