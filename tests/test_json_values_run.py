"""A whole run over rows of mixed JSON values: ranks, merge, score, report; the input is the file's rows to the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.merge.eval import merge
from hpcjobs.merge.score import rescore
from hpcjobs.plan.eval import make_plan
from hpcjobs.report import write_report
from hpcjobs.run_folder.json_columns import python_rows
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.tasks.datasets import load_table
from tests.reference.values import same
from tests.runs import inputs_of, run_ranks, said

VALUES: list[Any] = [
    12, 3.5, "x", None, True, [], {}, [1, 2.5, "y"], {"a": {}}, 2**80, float("nan"), "\u2028", {"b": 1, "a": 2},
    {"a": 1}, float("-inf"), -0.0, 2**63, {"": {"a.b": "\x00"}}, 10**400,
]  # fmt: skip
# Names of columns of results.parquet, and some that are none of any language.
NAMES = ["error", "completion", "scores", "input", "prompt", "index", "source_id", "self", "", "a.b", "\x00", "<b>"]


def row_of(number: int) -> dict[str, Any]:
    value = VALUES[number % len(VALUES)]
    row = {"key": f"k{number}", "id": number, "kind": number % 2, "question": f"What is {number}?", "value": value}
    row |= {name: VALUES[(number + place) % len(VALUES)] for place, name in enumerate(NAMES)}
    return row | {"options": {"A": "a", "B": str(number)} | ({"C": "c"} if number % 3 else {}), "text": str(value)}


def planned(folder: Path) -> tuple[RunPaths, list[dict[str, Any]]]:
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row_of(number)) + "\n" for number in range(100)))
    task = {
        "prompt": "{{ question }} {{ options.values() | join(' ') }} {{ value }}", "target": "{{ text }}",
        "metrics": ["exact_match"], "few_shot": {"k": 2, "same": "value", "sampling": "random"}, "group_by": ["kind"],
    }  # fmt: skip
    values = {
        "model": {"name": "tiny", "engine": "dummy"}, "task": task, "cluster": {"executor": "local"},
        "data": {"name": str(data), "id_column": "key"}, "run": {"heartbeat": 0.2},
    }  # fmt: skip
    draft = make_plan("eval", validate(Layer(values)), folder / "run")
    draft.write()
    return draft.paths, [json.loads(line) for line in data.read_text().splitlines()]


def test_merged_input_is_the_rows_of_the_file(tmp_path: Path) -> None:
    paths, rows = planned(tmp_path)
    run_ranks(paths, 3)
    assert merge(paths).complete
    assert said(paths)["counts"]["errors"] == 0
    expected = [{"id": row["id"]} | row for row in rows]
    assert same([{name: one[name] for name in expected[0]} for one in inputs_of(paths)], expected)
    first, summary = paths.results.read_bytes(), rescore(paths, [], None)
    assert same([{name: one[name] for name in expected[0]} for one in inputs_of(paths)], expected)
    assert first == paths.results.read_bytes()
    assert summary["complete"]
    page = write_report(paths).read_text()
    assert "What is " in page
    assert "the template fails" not in page
    again = load_table(validate(Layer({"data": {"name": str(paths.results)}})).data)
    assert same([row["input"]["value"] for row in python_rows(again)], [row["value"] for row in rows])
    assert Plan.read(paths.plan).data.name == str(tmp_path / "rows.jsonl")
