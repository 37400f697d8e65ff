"""Targets that no answer can equal are told before anything is queued."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from hpcjobs.config import TaskConfig
from hpcjobs.errors import DataError
from hpcjobs.metrics import Judge
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
