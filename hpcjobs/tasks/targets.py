"""Say which targets no answer can equal, and which rows end in errors, before anything is queued."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from hpcjobs.errors import DataError
from hpcjobs.metrics import Metric
from hpcjobs.requests import Row, Target
from hpcjobs.run_folder.inputs import user_row
from hpcjobs.run_folder.json_columns import python_rows
from hpcjobs.tasks.chats import unused_columns
from hpcjobs.tasks.prompts import Prompts
from hpcjobs.tasks.template import python_texts

MOST_LOOKED_AT = 1000


def target_notes(prompts: Prompts, metrics: Sequence[Metric], table: pa.Table) -> list[str]:
    """A note on the first 1,000 rows that end in errors, on those without a target, and for each metric that refuses
    the targets of some: those samples score 0.

    Raises a DataError if one refuses that of the first row: then it is the wrong metric, or the target is not yet what
    the metric needs.
    """
    seen = _Seen(prompts, table)
    found: dict[str, list[tuple[int, str]]] = {metric.name: [] for metric in _asking(metrics)}
    for number, target in seen.targets:
        for metric in _asking(metrics):
            if why := metric.refuse(target):
                found[metric.name].append((number, why))
    return [*seen.notes(), *(_note(name, refused, len(table)) for name, refused in found.items() if refused)]


def _asking(metrics: Sequence[Metric]) -> list[Metric]:
    return [metric for metric in metrics if isinstance(metric, Metric) and type(metric).refuse is not Metric.refuse]


class _Seen:
    """The targets of the first rows by their number, and the rows that end in errors."""

    def __init__(self, prompts: Prompts, table: pa.Table) -> None:
        self.targets: list[tuple[int, Target]] = []
        self._failed: list[str] = []
        self._of = _of(len(table))
        self._odd, self._unused = dict[str, list[int]](), dict[str, list[int]]()
        self._templates = list(prompts.templates.values())
        template = prompts.templates.get("task.target")
        self._lone = template is None or template.lone  # what `nulls` tells, of all rows
        for number, row in enumerate(python_rows(table.slice(0, MOST_LOOKED_AT))):
            try:
                with python_texts() as texts:
                    prompt = prompts.request(row, 0).prompt
                    self.targets.append((number, prompts.target(user_row(row))))
                for name in unused_columns(user_row(row), prompt):
                    self._unused.setdefault(name, []).append(number)
                for kind in texts - self._told(user_row(row)):
                    self._odd.setdefault(kind, []).append(number)
            except Exception as error:  # a template may raise anything
                self._failed.append(f"row {number} (id {row['id']!r}): {error}")

    def _told(self, row: Row) -> set[str]:
        """{"null"} if a column that a template writes out is null, which `nulls` tells, of all rows."""
        return {"null" for one in self._templates for name in one.written if row[name] is None}

    def notes(self) -> Iterator[str]:
        """What there is to say of them, apart from the metrics."""
        nulls = [number for number, target in self.targets if target is None]
        if nulls and not self._lone:
            yield f"task.target is null in {len(nulls)} {self._of}, the first is row {nulls[0]}: it has no target"
        for kind, rows in sorted(self._odd.items()):
            what = f"the templates write {kind} as Python does in {len(rows)} {self._of}, the first is row {rows[0]}"
            yield f"{what}: use a part of it, or a filter (join, tojson, default)"
        for name, rows in self._unused.items():
            if all(name not in template.columns for template in self._templates):
                what = f"column {name!r} is not used, in {len(rows)} {self._of}, the first is row {rows[0]}"
                yield f"{what}: only a chat from the column 'messages' or 'prompt' takes it to the chat template"
        if self._failed:
            yield f"{len(self._failed)} {self._of} end in an error; the first is {self._failed[0]}"


def _of(rows: int) -> str:
    return f"of {rows} rows" if rows <= MOST_LOOKED_AT else f"of the first {MOST_LOOKED_AT:,} rows"


def _note(name: str, refused: Sequence[tuple[int, str]], rows: int) -> str:
    number, why = refused[0]
    if number == 0:
        raise DataError(
            f"task.target: {name} cannot score the first row: its target {why}; choose another metric, or a target "
            "that has the number alone"
        )
    return f"{name} scores {len(refused)} {_of(rows)} 0: in row {number} the target {why}"
