"""Metrics as table rows, with places for a small bar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Score:
    """A metric's value, 95% interval and standard error as texts; the bar's places in per cent of `scale`."""

    name: str
    value: str
    interval: str
    stderr: str
    n: int
    scale: float
    bar: float | None
    whisker: tuple[float, float] | None


def score_of(name: str, summary: Mapping[str, Any]) -> Score:
    """The row of one metric of metrics.json. A bar runs from 0 to 1, or to 10, 100... for larger values."""
    value, interval = summary["value"], summary["ci95"]
    if value is None:
        return Score(name, "no value", "–", "–", summary["n"], 1.0, None, None)
    texts = f"{value:.4f}", _interval(interval), "–" if summary["stderr"] is None else f"{summary['stderr']:.4f}"
    scale = 1.0
    while value > scale and scale < 1e12:
        scale *= 10
    if value < 0 or value > scale:
        return Score(name, *texts, summary["n"], scale, None, None)
    whisker = interval and (_place(interval[0], scale), _place(interval[1], scale))
    return Score(name, *texts, summary["n"], scale, _place(value, scale), whisker)


def _interval(interval: tuple[float, float] | None) -> str:
    return "–" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"


def _place(value: float, scale: float) -> float:
    return round(100 * min(max(value / scale, 0.0), 1.0), 2)
