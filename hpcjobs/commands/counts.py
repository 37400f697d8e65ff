"""The progress of a run, by kind of job, for status."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpcjobs.run_folder.heartbeat import Vitals
from hpcjobs.run_folder.ledger.chunks import read_sizes
from hpcjobs.run_folder.ledger.claims import Claims
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.training.progress import read_progress


@dataclass(frozen=True)
class Counts:
    """Samples or steps, planned and done. `rate` is per second; None if it is the sum of the ranks' rates. `step` is
    the last step's record, `warnings` are about its rows.
    """

    rows: int
    done: int
    rate: float | None = None
    step: dict[str, float] | None = None
    warnings: Sequence[str] = ()


def count(paths: RunPaths, plan: Plan, live: Sequence[Vitals]) -> Counts:
    """The progress of a run, given its ranks; zero for kinds without samples or steps."""
    known = COUNTS.get(plan.kind.name)
    return known(paths, plan, live) if known else Counts(plan.rows, 0)


def _answers(paths: RunPaths, plan: Plan, live: Sequence[Vitals]) -> Counts:
    """Samples with a result: those of settled chunks, and finished ones of chunks in progress."""
    number = paths.rounds()[-1]
    sizes = read_sizes(paths.chunks(number))
    settled = sum(sizes[chunk] for chunk in Claims(paths.round(number)).list().done)
    return Counts(plan.rows, plan.rows - sum(sizes) + settled + sum(vitals.open for vitals in live))


def _steps(paths: RunPaths, plan: Plan, live: Sequence[Vitals]) -> Counts:
    """Planned and done steps, steps per second while ranks are alive, and the last step."""
    progress = read_progress(paths)
    last = dataclasses.asdict(progress.last) if progress.last else None
    if last:
        del last["samples"]
    return Counts(progress.steps, progress.done, progress.rate if live else 0.0, last, progress.warnings)


COUNTS: dict[str, Callable[[RunPaths, Plan, Sequence[Vitals]], Counts]] = {
    "eval": _answers, "generate": _answers, "sweep": _answers, "map": _answers, "train": _steps,
}  # fmt: skip
