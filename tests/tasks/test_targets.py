"""Targets that no answer can equal are told before anything is queued."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from hpcjobs.config import TaskConfig
from hpcjobs.errors import DataError
from hpcjobs.metrics import Judge
from hpcjobs.tasks.column_types import rows_table
from hpcjobs.tasks.prompts import Prompts
from hpcjobs.tasks.targets import target_notes


def notes(targets: list[Any], *metrics: str) -> list[str]:
    task = TaskConfig(prompt="{{ a }}", target="{{ a }}", metrics=metrics or ("number_match",))
    return target_notes(Prompts(task, ["a"]), Judge(task).metrics, rows_of(targets))


def rows_of(targets: list[Any]) -> pa.Table:
    return pa.table({"index": range(len(targets)), "id": list(map(str, range(len(targets)))), "a": targets})


def test_what_is_no_number_in_the_first_row_is_refused() -> None:
    said = r"number_match cannot score the first row: its target '3:30' is not one number; choose another metric, or"
    with pytest.raises(DataError, match=said):
        notes(["3:30", "4"])
    with pytest.raises(DataError, match=r"pass@1\(number_match\) cannot"):
        notes(["x"], "pass@1(number_match)")


def test_later_rows_are_counted() -> None:
    assert notes(["4", "1,2", "5", "x"]) == [
        "number_match scores 2 of 4 rows 0: in row 1 the target '1,2' is not one number"
    ]
    assert notes(["4"] * 999 + ["x", "x"]) == [
        "number_match scores 1 of the first 1,000 rows 0: in row 999 the target 'x' is not one number"
    ]


def test_numbers_null_and_other_metrics_are_fine() -> None:
    assert notes([1e-05, 1e16]) == []
    assert notes([None, "4"]) == []
    assert notes(["x", "y"], "exact_match", "f1") == []
    assert notes([]) == []


def asked(rows: list[dict[str, Any]], prompt: str, target: str, **task: Any) -> list[str]:
    checked = TaskConfig(prompt=prompt, target=target, metrics=("exact_match",), **task)
    table = rows_table([{"index": n, "id": f"r{n}", **row} for n, row in enumerate(rows)], str)
    return target_notes(Prompts(checked, list(rows[0])), Judge(checked).metrics, table)


def test_rows_that_end_in_errors_are_told_by_row_and_column() -> None:
    rows: list[dict[str, Any]] = [{"a": ["x"]}, {"a": []}, {"a": ["y", None]}, {"a": "z"}, {"a": {"k": 1}}]
    said = "3 of 5 rows end in an error; the first is row 1 (id 'r1'): task.target (column 'a') gives an empty list of"
    assert asked(rows, "Q", "{{ a }}") == [f"{said} targets"]
    assert asked([{"a": "x"}] * 2000 + [{"a": []}], "Q", "{{ a }}") == []


def test_null_and_lists_within_a_value_are_told() -> None:
    values = [{"b": "x", "c": "y"}, {"b": None, "c": None}, {"b": [1], "c": "z"}]
    use = "use a part of it, or a filter (join, tojson, default)"
    assert asked([{"a": value} for value in values], "{{ a.b }}", "{{ a.c }}") == [
        "task.target is null in 1 of 3 rows, the first is row 1: it has no target",
        f"the templates write a list or object as Python does in 1 of 3 rows, the first is row 2: {use}",
        f"the templates write null as Python does in 1 of 3 rows, the first is row 1: {use}",
    ]
    plain: list[dict[str, Any]] = [{"a": None, "b": "x"}, {"a": "y", "b": "x"}]  # told by null_notes, of all rows
    assert asked(plain, "{{ a }}", "{{ b }}") == []
