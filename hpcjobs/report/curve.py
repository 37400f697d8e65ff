"""Loss curves as coordinates; templates/curve.svg draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hpcjobs.report.axis import Tick, round_numbers
from hpcjobs.report.intervals import Floats
from hpcjobs.training.steps import StepRecord

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 1000, 300, 64, 24, 12, 36
# With more points than pixels, each pixel shows the mean of its points.
_POINTS = 900


@dataclass(frozen=True)
class CurveLine:
    """The curve of one train run: SVG path data of its loss; validation losses as points (x, y, label) and as a path.

    `name` is A or B if there are two, else ''. `summary` describes it in words.
    """

    name: str
    loss: str
    validation: list[tuple[float, float, str]]
    validation_path: str
    summary: str


@dataclass(frozen=True, kw_only=True)
class CurveDrawing:
    """The curves of one or two train runs on the same axes. `starts` marks restarts, if there is one run."""

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
        """All curves in words."""
        return "; ".join(f"{line.name}: {line.summary}" if line.name else line.summary for line in self.lines)


class _Plane:
    """Maps steps and losses to the drawing."""

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
    """The curve of a train run's steps, in order; None if fewer than two have a loss."""
    return _draw({"": records})


def draw_both(a: Sequence[StepRecord], b: Sequence[StepRecord]) -> CurveDrawing | None:
    """The curves of two train runs in one drawing; None if neither has two steps with a loss."""
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
    validation = [(record.step, record.eval_loss) for record in records if record.eval_loss is not None]
    points = [
        (plane.x(step), plane.y(value), f"{name} validation loss {value:.4f} after step {step}".strip())
        for step, value in validation
    ]
    first, last = records[0], records[-1]
    summary = f"loss {first.loss:.4g} at step {first.step}, {last.loss:.4g} at step {last.step}"
    summary += f"; validation loss {validation[-1][1]:.4g} after step {validation[-1][0]}" if validation else ""
    validation_path = _path([(x, y) for x, y, _ in points]) if len(points) > 1 else ""
    return CurveLine(name, _path(list(zip(*_thinned(xs, ys), strict=True))), points, validation_path, summary)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _thinned(xs: Floats, ys: Floats) -> tuple[list[float], list[float]]:
    if len(xs) <= _POINTS:
        return xs.tolist(), ys.tolist()
    parts = np.array_split(np.arange(len(xs)), _POINTS)
    return [float(xs[part].mean()) for part in parts], [float(ys[part].mean()) for part in parts]


def _starts(records: Sequence[StepRecord]) -> list[tuple[int, str]]:
    """The first step of each restart."""
    return [
        (after.step, f"step {after.step}: start {after.attempt}, {after.world_size} ranks")
        for before, after in pairwise(records)
        if before.attempt != after.attempt
    ]
