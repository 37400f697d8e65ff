"""Say which columns of a task's templates are null or empty in some rows: a template writes null as `None`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hpcjobs.run_folder.inputs import user_columns
from hpcjobs.run_folder.json_columns import is_json
from hpcjobs.tasks.prompts import Prompts

_WRITTEN = "the template writes it as None"
_NO_TARGET = "such a row has no target"
_EMPTY = "the target of such a row is empty"
_EMPTY_OPTIONS = "such a row has no options and ends in an error"


@dataclass(frozen=True)
class _Use:
    """A column in a template: what becomes of its null, and of an empty text (None: nothing to say)."""

    column: str
    null: str
    empty: str | None = None


def null_notes(prompts: Prompts, table: pa.Table) -> list[str]:
    """A note for each column that a template writes out, and that some rows do not have; of a target also empty texts.

    A column that the template asks about itself (`if`, `or`, `default`) is not one of them.
    """
    notes: dict[str, None] = {}
    stored = {user_columns([name])[0]: name for name in table.column_names}  # the user's own come later and win
    for use in _uses(prompts):
        column = stored[use.column]
        values = table.column(column)
        notes |= dict.fromkeys(_note(use.column, "null", _nulls(table.schema.field(column), values), use.null))
        if use.empty and (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            notes |= dict.fromkeys(_note(use.column, "empty", pc.equal(values, ""), use.empty))
    return list(notes)


def _uses(prompts: Prompts) -> Iterator[_Use]:
    for key, template in prompts.templates.items():
        for column in sorted(template.written):
            if template.lone and key == "task.target":
                yield _Use(column, _NO_TARGET, _EMPTY)
            elif key == "task.choices":
                yield _Use(column, _EMPTY_OPTIONS if template.lone else _WRITTEN)
            else:
                yield _Use(column, _WRITTEN, _EMPTY if key == "task.target" else None)


def _nulls(field: pa.Field, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Where a column is null, JSON's null included."""
    if is_json(field):
        texts = pc.cast(values, pa.large_string())
        return pc.fill_null(pc.equal(pc.utf8_trim_whitespace(texts), "null"), True)
    return pc.is_null(values)


def _note(column: str, how: str, where: pa.ChunkedArray, then: str) -> Iterator[str]:
    rows: npt.NDArray[np.int64] = np.flatnonzero(np.asarray(pc.fill_null(where, False)))
    if len(rows):
        yield f"column {column!r} is {how} in {len(rows)} of {len(where)} rows, the first is row {rows[0]}: {then}"
