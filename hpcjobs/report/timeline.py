"""The timeline of the ranks as coordinates; templates/timeline.svg draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpcjobs.report.activity import KINDS, Activity
from hpcjobs.report.axis import Axis, FoldedPause, Tick
from hpcjobs.report.intervals import Floats
from hpcjobs.report.text import duration, percent, plural

WIDTH, LEFT, RIGHT = 1000, 150, 24
MOST_ROWS, SHOWN_ROWS = 64, 32
AREA_ROWS = 8
_AREA_HEIGHT, _BINS = 80, 240
_STACK = ("work", "load", "idle", "unknown")
# Drawn in this order: a gap thinner than a pixel disappears under the work.
_PAINT = ("idle", "unknown", "load", "work")


@dataclass(frozen=True, kw_only=True)
class Bar:
    """The bar of a rank: SVG path data by kind, and where and how it was lost ('' if it was not)."""

    label: str
    detail: str
    title: str
    y: float
    height: float
    paths: dict[str, str]
    lost: str
    end: float


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Everything that is drawn. `areas` (path data by kind, all ranks together) is empty if the rows show all."""

    width: int
    height: float
    top: float
    bottom: float
    bars: list[Bar]
    areas: dict[str, str]
    most: int
    ticks: list[Tick]
    folds: list[FoldedPause]
    left_out: int
    kinds: list[str]
    summary: str


def draw(activities: Sequence[Activity]) -> Timeline | None:
    """The timeline of all ranks; None if no rank has started.

    With more than MOST_ROWS ranks only SHOWN_ROWS are drawn, in order: the most idle, up to half of them lost ranks.
    With more than AREA_ROWS an area shows all ranks together.
    """
    if not activities:
        return None
    alive = np.array([[activity.start, activity.end] for activity in activities])
    axis = Axis(alive, LEFT, WIDTH - LEFT - RIGHT)
    shown = _shown(activities)
    area = len(activities) > AREA_ROWS
    areas, most = _areas(activities, axis) if area else ({}, 0)
    top, pitch = (_AREA_HEIGHT + 34.0 if area else 8.0), (26.0 if len(shown) <= 8 else 18.0)
    attempts = len({activity.attempt for activity in activities})
    bars = [_bar(activity, axis, top + pitch * row, pitch - 6, attempts > 1) for row, activity in enumerate(shown)]
    bottom = top + pitch * len(bars)
    kinds = [kind for kind in KINDS if any(kind in bar.paths for bar in bars) or areas.get(kind)]
    return Timeline(
        width=WIDTH,
        height=bottom + 26,
        top=top,
        bottom=bottom,
        bars=bars,
        areas=areas,
        most=most,
        ticks=axis.ticks,
        folds=axis.folds,
        left_out=len(activities) - len(shown),
        kinds=kinds,
        summary=summary(activities),
    )


def summary(activities: Sequence[Activity]) -> str:
    """One sentence: how many ranks, and how they spent their time."""
    known = [activity for activity in activities if activity.known]
    total = sum(activity.seconds for activity in known)
    shares = [("loading", sum(a.load for a in known)), ("working", sum(a.busy for a in known))]
    shares.append(("idle", sum(a.idle for a in known)))
    text = f"{plural(len(activities), 'rank')}, {duration(total)} of rank time"
    return f"{text}: {', '.join(f'{percent(part / total)} {name}' for name, part in shares)}" if total else text


def _shown(activities: Sequence[Activity]) -> list[Activity]:
    if len(activities) <= MOST_ROWS:
        return list(activities)
    idle = sorted(range(len(activities)), key=lambda n: -activities[n].idle)
    lost = [n for n in idle if activities[n].lost][: SHOWN_ROWS // 2]
    others = [n for n in idle if n not in set(lost)][: SHOWN_ROWS - len(lost)]
    return [activities[n] for n in sorted([*lost, *others])]


def _bar(activity: Activity, axis: Axis, y: float, height: float, attempts: bool) -> Bar:
    paths = {kind: _boxes(axis.x(activity.parts(kind)), y, height) for kind in _PAINT}
    end = float(axis.x(np.array(activity.end)))
    lost = activity.state if activity.lost else ""
    detail = _short(activity.attempt if attempts else activity.host)
    paths = {kind: path for kind, path in paths.items() if path}
    return Bar(
        label=f"rank {activity.rank}",
        detail=detail,
        title=_title(activity),
        y=y,
        height=height,
        paths=paths,
        lost=lost,
        end=end,
    )


def _title(activity: Activity) -> str:
    words = [f"rank {activity.rank}, attempt {activity.attempt}, on {activity.host}: {activity.state}"]
    words += [activity.ended] if activity.ended else []
    words.append(f"{duration(activity.seconds)} in all, {duration(activity.load)} loading")
    if activity.known:
        words.append(f"{duration(activity.busy)} working, {duration(activity.idle)} idle")
    else:
        words.append("no journal to say when it worked")
    return "\n".join([*words, f"{plural(activity.samples, 'sample')}, {plural(activity.errors, 'error')}"])


def _short(text: str) -> str:
    return text if len(text) <= 14 else f"{text[:6]}…{text[-7:]}"


def _boxes(x: Floats, y: float, height: float) -> str:
    """Path data of boxes from rows (left, right); boxes less than a pixel apart are joined."""
    x = x[x[:, 1] > x[:, 0]]
    if not len(x):
        return ""
    apart = np.flatnonzero(x[1:, 0] - x[:-1, 1] > 0.75)
    lefts, rights = x[np.append(0, apart + 1), 0], x[np.append(apart, len(x) - 1), 1]
    widths = np.maximum(rights - lefts, 0.5)
    pairs = zip(lefts.tolist(), widths.tolist(), strict=True)
    return "".join(f"M{left:.1f} {y:g}h{width:.1f}v{height:g}h-{width:.1f}z" for left, width in pairs)


def _areas(activities: Sequence[Activity], axis: Axis) -> tuple[dict[str, str], int]:
    """How many ranks did what, stacked over time; and the most ranks at once."""
    x, times = axis.edges(_BINS)
    counts = {kind: np.zeros(_BINS) for kind in _STACK}
    for activity in activities:
        for kind in _STACK:
            counts[kind] += np.diff(_covered(activity.parts(kind), times))
    seconds = np.maximum(np.diff(times), 1e-9)
    layers = np.cumsum([counts[kind] / seconds for kind in _STACK], axis=0)
    most = max(1, round(float(layers[-1].max())))
    levels = 10 + _AREA_HEIGHT * (1 - np.vstack([np.zeros(_BINS), layers]) / most)
    areas = {kind: _area(x, levels[n + 1], levels[n]) for n, kind in enumerate(_STACK) if counts[kind].any()}
    return areas, most


def _covered(parts: Floats, times: Floats) -> Floats:
    """Seconds of `parts` before each of `times`."""
    if not len(parts):
        return np.zeros(len(times))
    lengths = np.column_stack([np.zeros(len(parts)), parts[:, 1] - parts[:, 0]])
    covered: Floats = np.interp(times, parts.ravel(), np.cumsum(lengths.ravel()))
    return covered


def _area(x: Floats, upper: Floats, lower: Floats) -> str:
    """Path data of a stepped band between two levels (one value per bin)."""
    sides = np.repeat(x, 2)[1:-1]
    there = zip(sides.tolist(), np.repeat(upper, 2).tolist(), strict=True)
    back = zip(sides[::-1].tolist(), np.repeat(lower, 2)[::-1].tolist(), strict=True)
    return "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in [*there, *back]) + "z"
