"""Null and empty cells of the columns that templates write out are counted and told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.config import DataConfig
from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.run_folder.inputs import user_columns
from hpcjobs.tasks.datasets import load_table
from hpcjobs.tasks.nulls import null_notes
from hpcjobs.tasks.prompts import Prompts


def notes_of(file: Path, **task: Any) -> list[str]:
    table = load_table(DataConfig(name=str(file)))
    return null_notes(Prompts(validate(Layer({"task": task})).task, user_columns(table.column_names)), table)


def jsonl(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


ROWS = [{"q": f"q{n}", "a": None if n in (3, 5) else "x", "mixed": [1, "a", None, {}][n % 4]} for n in range(8)]


@pytest.mark.parametrize(
    ("task", "notes"),
    [
        ({"prompt": "{{ q }}", "target": "{{ q }}"}, []),
        (
            {"prompt": "{{ q }} {{ a }}"},
            ["'a' is null in 2 of 8 rows, the first is row 3: the template writes it as N"],
        ),
        (
            {"prompt": "{{ q }}", "target": "{{ a }}"},
            ["'a' is null in 2 of 8 rows, the first is row 3: such a row has"],
        ),
        ({"prompt": "{{ q }}", "target": "is {{ a }}"}, ["'a' is null in 2 of 8 rows, the first is row 3: the templ"]),
        ({"prompt": "{{ mixed }}"}, ["'mixed' is null in 2 of 8 rows, the first is row 2: the template writes it as"]),
        ({"prompt": "{{ a | upper }}"}, ["'a' is null in 2 of 8 rows"]),
        ({"prompt": "{{ q ~ a }}"}, ["'a' is null in 2 of 8 rows"]),
        ({"prompt": "{{ q }}{% if a %} {{ a }}{% endif %}"}, []),
        ({"prompt": "{{ a or '' }}"}, []),
        ({"prompt": "{{ a | default('', true) }}"}, []),
        ({"prompt": "{{ 'none' if a is none else a }}"}, []),
        ({"messages": [{"role": "user", "content": "{{ a }}"}]}, ["'a' is null in 2 of 8 rows"]),
        ({"type": "choice", "prompt": "{{ q }}", "choices": ["x", "{{ a }}"]}, ["'a' is null in 2 of 8 rows"]),
        (
            {"type": "choice", "prompt": "{{ q }}", "choices": "{{ a }}"},
            ["the first is row 3: such a row has no optio"],
        ),
    ],
)
def test_a_null_that_a_template_writes_out_is_told(tmp_path: Path, task: dict[str, Any], notes: list[str]) -> None:
    found = notes_of(jsonl(tmp_path, ROWS), **task)
    assert len(found) == len(notes)
    assert all(part in note for part, note in zip(notes, found, strict=True)), found


def test_a_column_in_prompt_and_choices_is_told_once(tmp_path: Path) -> None:
    task = {"type": "choice", "prompt": "{{ a }}", "choices": ["{{ a }}", "b"]}
    assert len(notes_of(jsonl(tmp_path, ROWS), **task)) == 1


def test_an_empty_cell_of_a_csv_file_is_told_for_a_target_only(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("q,a\none,1\n,2\nthree,\n")
    notes = notes_of(path, prompt="{{ q }}", target="{{ a }}")
    assert notes == ["column 'a' is empty in 1 of 3 rows, the first is row 2: the target of such a row is empty"]


def test_the_users_own_id_is_counted_under_its_name(tmp_path: Path) -> None:
    rows = [{"index": None if n == 1 else n * 2, "q": "x"} for n in range(3)]
    assert "column 'index' is null in 1 of 3 rows" in notes_of(jsonl(tmp_path, rows), prompt="{{ index }}")[0]
