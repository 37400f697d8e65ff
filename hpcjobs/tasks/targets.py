"""Say which targets no answer can equal, and what else there is to say of the first rows, before anything is queued."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from hpcjobs.errors import DataError
from hpcjobs.metrics import Metric
from hpcjobs.tasks.first_rows import FirstRows, of_rows
from hpcjobs.tasks.prompts import Prompts


def target_notes(prompts: Prompts, metrics: Sequence[Metric], table: pa.Table) -> list[str]:
    """The notes of `FirstRows`, and one for each metric that refuses the targets of some: those samples score 0.

    Raises a DataError if one refuses that of the first row: then it is the wrong metric, or the target is not yet what
    the metric needs.
    """
    first = FirstRows(prompts, table)
    found: dict[str, list[tuple[int, str]]] = {metric.name: [] for metric in _asking(metrics)}
    for number, target in first.targets:
        for metric in _asking(metrics):
            if why := metric.refuse(target):
                found[metric.name].append((number, why))
    return [*first.notes, *(_note(name, refused, len(table)) for name, refused in found.items() if refused)]


def _asking(metrics: Sequence[Metric]) -> list[Metric]:
    return [metric for metric in metrics if isinstance(metric, Metric) and type(metric).refuse is not Metric.refuse]


def _note(name: str, refused: Sequence[tuple[int, str]], rows: int) -> str:
    number, why = refused[0]
    if number == 0:
        raise DataError(
            f"task.target: {name} cannot score the first row: its target {why}; choose another metric, or a target "
            "that has the number alone"
        )
    return f"{name} scores {len(refused)} {of_rows(rows)} 0: in row {number} the target {why}"
