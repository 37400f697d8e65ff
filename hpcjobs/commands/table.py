"""table: the scores of many runs, a row each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpcjobs.commands.damage import naming
from hpcjobs.commands.runs import look_at
from hpcjobs.commands.status import Status
from hpcjobs.errors import HpcJobsError
from hpcjobs.run_folder.metrics_file import Summary
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A run: what ran on what, how far it is, and its metrics; `why` says what is wrong, or what cannot be read."""

    run: str
    job: str
    model: str
    data: str
    state: str
    rows: int
    done: int
    metrics: Mapping[str, Summary]
    why: str = ""


@dataclass(frozen=True)
class Table:
    """Rows, and the names of all metrics in them, in the order in which they are met."""

    rows: list[TableRow]

    @property
    def metrics(self) -> list[str]:
        """The columns of metrics."""
        return list(dict.fromkeys(name for row in self.rows for name in row.metrics))


def table_of(runs: Sequence[RunPaths]) -> Table:
    """The runs in this order. One that cannot be read has a row that says so; Slurm is asked once for all."""
    return Table([_row(paths, status) for paths, status in look_at(runs)])


def _row(paths: RunPaths, status: Status | HpcJobsError) -> TableRow:
    if not isinstance(status, HpcJobsError):
        try:
            with naming(paths):
                return _read(paths, status)
        except HpcJobsError as error:
            status = error
    lost = {"job": "", "model": "", "data": "", "state": "damaged", "rows": 0, "done": 0}
    return TableRow(run=paths.root.name, metrics={}, why=str(status), **lost)  # type: ignore[arg-type]


def _read(paths: RunPaths, status: Status) -> TableRow:
    plan = Plan.read(paths.plan)
    return TableRow(
        run=paths.root.name,
        job=status.job,
        model=plan.model.name,
        data=plan.data.name,
        state=str(status.state),
        rows=status.rows,
        done=status.done,
        metrics=status.metrics.metrics if status.metrics else {},
        why=status.metrics.verdict.why if status.metrics else "",
    )
