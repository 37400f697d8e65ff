"""The evals of a train run's models as a table."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.training.evals import EvalState, evals_of


@dataclass(frozen=True)
class EvalRow:
    """One model: its name, the state of its eval, its scores in the table's order, and a relative link to the eval's
    report. `reason` is why the eval could not be started.
    """

    model: str
    state: EvalState
    scores: list[str]
    report: str | None
    reason: str | None


@dataclass(frozen=True)
class EvalTable:
    """The rows, by step, and the names of the scores."""

    metrics: list[str]
    rows: list[EvalRow]


def eval_table(paths: RunPaths) -> EvalTable | None:
    """The evals as they are now; None if there are none."""
    evals = evals_of(paths)
    if not evals:
        return None
    names = list(dict.fromkeys(name for one in evals for name in one.metrics))
    rows = []
    for one in evals:
        scores = [one.metrics.get(name) for name in names]
        report = RunPaths(Path(one.run)).report
        link = quote(os.path.relpath(report, paths.root)) if report.exists() else None
        which = "model/, the last" if one.step is None else f"step {one.step}"
        rows.append(EvalRow(which, one.state, ["–" if s is None else f"{s:.4f}" for s in scores], link, one.reason))
    return EvalTable(names, rows)
