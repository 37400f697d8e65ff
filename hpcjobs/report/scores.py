"""Metrics as table rows, with positions for a small bar; groups and options as tables."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hpcjobs.metrics.format import number_text
from hpcjobs.report.text import Cut
from hpcjobs.run_folder.metrics_file import Groups, Summary

MOST_GROUPS = 100
_NONE = "–"


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """A metric's value, 95% intervals and standard error as text; the bar's positions are percentages of `scale`.

    `options`: letter, value and count of the samples with that correct option.
    """

    name: str
    n: int
    value: str = "no value"
    interval: str = _NONE
    bootstrap: str = _NONE
    stderr: str = _NONE
    scale: float = 1.0
    bar: float | None = None
    whisker: tuple[float, float] | None = None
    options: list[tuple[str, str, int]] = field(default_factory=list)
    lower_is_better: bool = False
    unscored: int = 0


@dataclass(frozen=True)
class GroupTable:
    """The first 100 values of a column, each with its number of samples and scores by metric; `total` values in all."""

    column: str
    metrics: list[str]
    rows: list[tuple[Cut, int, list[ScoreRow]]]
    total: int


def group_tables(groups: Groups) -> list[GroupTable]:
    """The `groups` of metrics.json as tables."""
    return [_group_table(column, values) for column, values in groups.items() if values]


def _group_table(column: str, values: Mapping[str, Mapping[str, Summary]]) -> GroupTable:
    names = list(next(iter(values.values()), {}))  # each group has every metric
    rows = []
    for value, group in itertools.islice(values.items(), MOST_GROUPS):
        scores = [score_of(name, group[name]) for name in names]
        rows.append((Cut.of(value), max(score.n for score in scores), scores))
    return GroupTable(column, names, rows, len(values))


def score_of(name: str, summary: Summary) -> ScoreRow:
    """The row of one metric of metrics.json. A bar runs from 0 to 1, or to 10, 100... for larger values."""
    value, interval = summary["value"], summary["ci95"]
    if value is None:
        return ScoreRow(name=name, n=summary["n"], unscored=summary.get("unscored", 0))
    scale = 1.0
    while value > scale and scale < 1e12:
        scale *= 10
    drawn = 0 <= value <= scale
    return ScoreRow(
        name=name,
        n=summary["n"],
        value=number_text(value),
        interval=_interval(interval),
        bootstrap=_interval(summary.get("bootstrap_ci95")),
        stderr=_NONE if summary["stderr"] is None else number_text(summary["stderr"]),
        scale=scale,
        bar=_place(value, scale) if drawn else None,
        whisker=(_place(interval[0], scale), _place(interval[1], scale)) if drawn and interval else None,
        unscored=summary.get("unscored", 0),
        lower_is_better=summary.get("lower_is_better", False),
        options=[(letter, f"{one['value']:.4f}", one["n"]) for letter, one in summary.get("by_option", {}).items()],
    )


def _interval(interval: Sequence[float] | None) -> str:
    return _NONE if interval is None else " to ".join(map(number_text, interval))


def _place(value: float, scale: float) -> float:
    return round(100 * min(max(value / scale, 0.0), 1.0), 2)
