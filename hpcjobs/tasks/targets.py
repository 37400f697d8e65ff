"""Say which targets no answer can equal, before anything is queued."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from hpcjobs.errors import DataError
from hpcjobs.metrics import Metric
from hpcjobs.requests import Target
from hpcjobs.run_folder.inputs import user_row
from hpcjobs.run_folder.json_columns import python_rows
from hpcjobs.tasks.prompts import Prompts

MOST_LOOKED_AT = 1000


def target_notes(prompts: Prompts, metrics: Sequence[Metric], table: pa.Table) -> list[str]:
    """A note for each metric that refuses the targets of some of the first 1,000 rows: those samples score 0.

    Raises a DataError if it refuses that of the first row: then it is the wrong metric, or the target is not yet what
    the metric needs.
    """
    asking = [metric for metric in metrics if isinstance(metric, Metric) and type(metric).refuse is not Metric.refuse]
    if not asking:
        return []
    found: dict[str, list[tuple[int, str]]] = {metric.name: [] for metric in asking}
    for number, target in enumerate(_targets(prompts, table.slice(0, MOST_LOOKED_AT))):
        for metric in asking:
            if why := metric.refuse(target):
                found[metric.name].append((number, why))
    return [_note(name, refused, len(table)) for name, refused in found.items() if refused]


def _targets(prompts: Prompts, table: pa.Table) -> Iterator[Target]:
    """The target of each row; None where the template raises, which the row's own error says."""
    for row in python_rows(table):
        try:
            yield prompts.target(user_row(row))
        except Exception:  # a template may raise anything
            yield None


def _note(name: str, refused: Sequence[tuple[int, str]], rows: int) -> str:
    number, why = refused[0]
    if number == 0:
        raise DataError(
            f"task.target: {name} cannot score the first row: its target {why}; choose another metric, or a target "
            "that has the number alone"
        )
    of = f"of {rows} rows" if rows <= MOST_LOOKED_AT else f"of the first {MOST_LOOKED_AT:,} rows"
    return f"{name} scores {len(refused)} {of} 0: in row {number} the target {why}"
