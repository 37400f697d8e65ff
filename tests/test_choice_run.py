"""Whole runs of multiple choice and perplexity: real ranks, the tiny model, merge, score and report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.merge.eval import merge
from hpcjobs.merge.score import rescore
from hpcjobs.plan.eval import make_plan
from hpcjobs.report import write_report
from hpcjobs.run_folder.paths import RunPaths
from tests.runs import run_ranks, said

pytestmark = pytest.mark.model


def row_of(n: int) -> dict[str, Any]:
    return {
        "id": f"q{n}", "kind": ("a", "b")[n % 2], "gold": n % 2,
        "question": f"{('Reverse', 'Upper')[n % 2]}: {'abcdefg'[n % 5 : n % 5 + 3]}",
        "options": ["cba", "ABC", "a-b-c", f"x{n}"][: 2 + n % 3], "text": f"Some words {n} " * (1 + n * 5 % 40),
    }  # fmt: skip


ROWS = [row_of(n) for n in range(30)]
CHOICE = {
    "type": "choice", "prompt": "{{ question }}", "choices": "{{ options }}", "target": "{{ gold }}",
    "few_shot": {"k": 2, "same": "kind"}, "metrics": ["acc", "acc_norm"], "group_by": ["kind"],
}  # fmt: skip
PERPLEXITY = {"type": "perplexity", "prompt": "{{ text }}", "metrics": ["perplexity", "word_perplexity"]}


def run(folder: Path, task: dict[str, Any], ranks: int, rows: list[dict[str, Any]] = ROWS) -> RunPaths:
    data = folder.with_suffix(".jsonl")
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "model": {"name": "tiny"}, "data": {"name": str(data)}, "task": task, "cluster": {"executor": "local"},
        "run": {"deterministic": True, "heartbeat": 0.2},
    }  # fmt: skip
    draft = make_plan("eval", validate(Layer(values)), folder)
    draft.write()
    run_ranks(draft.paths, ranks)
    return draft.paths


@pytest.mark.parametrize("task", [CHOICE, PERPLEXITY], ids=["choice", "perplexity"])
def test_any_number_of_ranks_gives_the_same_bytes(ram: Path, task: dict[str, Any]) -> None:
    one, two = (run(ram / f"run{ranks}", task, ranks) for ranks in (1, 2))
    for paths in (one, two):
        assert merge(paths).complete
    assert one.results.read_bytes() == two.results.read_bytes()
    assert said(one) == said(two)
    table = pq.read_table(one.results)
    assert table.column("finish_reason").to_pylist() == ["scored"] * len(ROWS)
    before = said(one)
    rescore(one, [], None)
    assert said(one) == before
    assert pq.read_table(one.results).equals(table)


def test_options_stand_in_table_metrics_and_report(ram: Path) -> None:
    paths = run(ram / "run", CHOICE, 1, [*ROWS, ROWS[0] | {"id": "wrong", "gold": 9}])
    merge(paths)
    rows = pq.read_table(paths.results).to_pylist()
    for row, asked in zip(rows[:-1], ROWS, strict=True):
        best = max(range(len(asked["options"])), key=row["choice_logprobs"].__getitem__)
        assert row["completion"] == asked["options"][best]
        assert row["scores"]["acc"] == float(best == asked["gold"])
        assert len(row["choice_tokens"]) == len(row["choice_greedy"]) == len(asked["options"])
    assert rows[-1]["error"] is None
    assert [error["type"] for error in rows[-1]["metric_errors"]] == ["ValueError"] * len(rows[-1]["scores"])
    assert "none of the 2 options" in rows[-1]["metric_errors"][0]["message"]
    values = json.loads(paths.metrics.read_text())
    assert values["metrics"]["acc"]["n"] == len(ROWS)
    assert sum(one["n"] for one in values["metrics"]["acc"]["by_option"].values()) == len(ROWS)
    assert {kind: found["acc"]["n"] for kind, found in values["groups"]["kind"].items()} == {"a": 15, "b": 15}
    write_report(paths)
    page = paths.report.read_text()
    assert "likeliest" in page
    assert ", right" in page
    assert f"{rows[3]['choice_logprobs'][0]:.2f}" in page
