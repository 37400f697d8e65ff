"""Rows that end in errors, have no target, or are not asked as one would think: told before anything is queued."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hpcjobs.config import TaskConfig
from hpcjobs.metrics import Judge
from hpcjobs.tasks.column_types import rows_table
from hpcjobs.tasks.prompts import Prompts
from hpcjobs.tasks.targets import target_notes


def asked(rows: list[dict[str, Any]], prompt: str | None, target: str, **task: Any) -> list[str]:
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
        f"the templates write null as Python does in 1 of 3 rows, the first is row 1: {use}",
        f"the templates write a list or object as Python does in 1 of 3 rows, the first is row 2: {use}",
    ]
    plain: list[dict[str, Any]] = [{"a": None, "b": "x"}, {"a": "y", "b": "x"}]  # told by null_notes, of all rows
    assert asked(plain, "{{ a }}", "{{ b }}") == []


USER, ASSISTANT = {"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}


def test_a_chat_that_ends_with_the_answer_is_told() -> None:
    rows: list[dict[str, Any]] = [{"messages": [USER]}, {"messages": [USER, ASSISTANT]}]
    said = "the chat ends with the assistant's turn in 1 of 2 rows, the first is row 1: the model sees it and is asked"
    found = asked([row | {"gold": "2"} for row in rows], None, "{{ gold }}")
    assert found == [f"{said} for one more; if it is the answer, take it out of the chat"]


@pytest.mark.parametrize(
    ("text", "how"),
    [
        (json.dumps(["Paris", 'the "city"']), "JSON"), (str(["Paris", "it's"]), "Python's"), ("['a' 'b']", "Python's"),
        ("[1, 2]", ""), ("[]", ""), ("[x]", ""), ("Paris", ""), ('[{"a": 1}]', ""), ("[" * 9000, ""),
    ],
)  # fmt: skip
def test_a_list_of_right_answers_as_text_is_told(text: str, how: str) -> None:
    said = f"the target is a list, but as {how} text in 1 of 1 rows, the first is row 0: no list of right answers until"
    then = "set data.types: {gold: json}" if how == "JSON" else "write the file again with JSON in it"
    assert asked([{"gold": text}], "Q", "{{ gold }}") == ([f"{said} you {then}"] if how else [])
    assert asked([{"gold": text}], "Q", "{{ gold }}.") == []


OPENS = [
    "{{ o[0] }}", "{{ o | join(', ') }}", "{% for one in o %}{{ one }}{% endfor %}", "{{ (o | list)[0] }}",
    "{{ o | map('upper') | list | length }}", "{{ o | first }}",
]  # fmt: skip


@pytest.mark.parametrize("prompt", OPENS)
def test_a_list_as_text_whose_characters_a_template_takes_is_told(prompt: str) -> None:
    """CSV files have lists so; jinja2 takes the bracket for the first item."""
    said = "in 1 of 1 rows, the first is row 0: a template takes its characters, not its items, until you"
    json_then, python_then = "set data.types: {o: json}", "write the file again with JSON in it"
    for text, how, then in (('["a", "b"]', "JSON", json_then), ("{'k': 1}", "Python's", python_then)):
        what = f"column 'o' is a list or object, but as {how} text"
        assert asked([{"o": text, "gold": "x"}], prompt, "{{ gold }}") == [f"{what} {said} {then}"]
    for plain in (["a", "b"], "a, b", "[not JSON"):
        assert asked([{"o": plain, "gold": "x"}], prompt, "{{ gold }}") == []


@pytest.mark.parametrize("prompt", ["{{ o }}", "{{ o[:9] }}", "{{ o | trim }}", "{{ o.strip() }}", "{{ o | upper }}"])
def test_json_that_is_asked_as_a_text_is_one(prompt: str) -> None:
    assert asked([{"o": '["a", "b"]', "gold": "x"}], prompt, "{{ gold }}") == []
