"""Gates: by how much a metric may get worse between two runs."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from hpcjobs.compare.statistics import Differences
from hpcjobs.errors import IncompleteError, UsageError, did_you_mean
from hpcjobs.metrics.registry import lower_is_better

# Sums are rounded: 0.75 - 0.74 is slightly more than 0.01, but no regression by more than 0.01.
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The result of a gate. `drop` is by how much B is worse than A, negative if it is better.

    `worse` is lower, or higher for metrics such as losses. `passed` is None if it cannot be decided, for the reason
    `why`.
    """

    metric: str
    limit: float
    drop: float | None
    passed: bool | None
    why: str = ""
    worse: str = "lower"

    def line(self) -> str:
        """The gate as a line of text."""
        if self.passed is None or self.drop is None:
            return f"gate    {self.metric}: NOT DECIDED: {self.why}"
        if self.drop <= 0:
            return f"gate    {self.metric}: passed: B is not {self.worse}"
        by = f"B is {self.worse} by {self.drop:.6g}"
        if self.passed:
            return f"gate    {self.metric}: passed: {by}, not more than {self.limit:g}"
        return f"gate    {self.metric}: REGRESSION: {by}, more than {self.limit:g}"


def parse_gates(words: Sequence[str]) -> dict[str, float]:
    """Limits by metric from `metric=0.01` arguments. Raises a UsageError for anything else."""
    limits: dict[str, float] = {}
    for word in words:
        metric, equals, text = word.rpartition("=")
        limit = _number(text)
        if not equals or not metric or limit is None:
            raise UsageError(
                f"--gate {word!r} does not say by how much a metric may fall: write it as METRIC=NUMBER with a number "
                "that is 0 or more, such as exact_match=0.01"
            )
        if metric in limits:
            raise UsageError(f"--gate {word!r}: {metric!r} has a gate already, {limits[metric]:g}")
        limits[metric] = limit
    return limits


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def check_gates(
    limits: Mapping[str, float], common: Collection[str], advice: str = "hpcjobs score RUN --metric adds one"
) -> None:
    """Raise a UsageError, with `advice`, for a gate on a metric that not both runs have."""
    for metric in limits:
        if metric not in common:
            raise UsageError(
                f"--gate {metric}: the runs have no metric {metric!r} in common{did_you_mean(metric, common)}; "
                f"both have: {', '.join(common)}; {advice}"
            )


def judge(
    limits: Mapping[str, float], found: Mapping[str, Differences], undecided: str, lower: Collection[str] = ()
) -> list[Gate]:
    """Decide the gates by the mean differences. `undecided` is why none can be decided, or ''; of the metrics in
    `lower`, lower values are better.
    """
    return [_judge(metric, limit, found[metric], undecided, metric in lower) for metric, limit in limits.items()]


def _judge(metric: str, limit: float, found: Differences, undecided: str, lower: bool) -> Gate:
    blank = Gate(
        metric=metric,
        limit=limit,
        drop=None,
        passed=None,
        why=undecided,
        worse="higher" if lower or lower_is_better(metric) else "lower",
    )
    if found.mean is None:
        return replace(blank, why="no pair of samples has a finite score on both sides")
    return _decided(blank, found.mean, max(abs(found.a / found.n), abs(found.b / found.n)))


def judge_value(metric: str, limit: float, a: float, b: float, worse: str, undecided: str) -> Gate:
    """The gate of a value that each run has once, such as a loss; `worse` is 'lower' or 'higher'."""
    return _decided(
        Gate(metric=metric, limit=limit, drop=None, passed=None, why=undecided, worse=worse), b - a, max(abs(a), abs(b))
    )


def _decided(gate: Gate, difference: float, scale: float) -> Gate:
    """The gate decided by the difference B - A; undecided if it has a reason. `scale` is the size of the values."""
    drop = difference if gate.worse == "higher" else 0.0 - difference
    passed = None if gate.why else drop <= gate.limit + _ROUNDING * max(1.0, scale)
    return replace(gate, drop=drop, passed=passed)


def gates_exit_code(gates: Sequence[Gate]) -> int:
    """0; 1 if a gate finds a regression; else 3 if a gate cannot be decided."""
    passed = [gate.passed for gate in gates]
    return 1 if False in passed else IncompleteError.exit_code if None in passed else 0
