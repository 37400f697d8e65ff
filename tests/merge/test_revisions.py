"""Scores of an earlier definition of a metric are told from those of the present one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hpcjobs.compare.eval_findings import find
from hpcjobs.config import TaskConfig
from hpcjobs.merge.eval import merge
from hpcjobs.merge.score import rescore
from hpcjobs.metrics import find_metrics
from hpcjobs.metrics.revisions import revisions
from hpcjobs.plan.eval import make_plan
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.paths import RunPaths
from tests.runs import config_of, run_ranks


def run_of(folder: Path, name: str) -> RunPaths:
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps({"id": f"r{n}", "q": f"q{n}", "a": n}) + "\n" for n in range(3)))
    task = {"prompt": "{{ q }}", "target": "{{ a }}", "metrics": ["exact_match", "number_match"]}
    draft = make_plan("eval", config_of(data, {"task": task}), folder / name)
    draft.write()
    run_ranks(draft.paths, 1)
    merge(draft.paths)
    return draft.paths


def test_an_old_run_is_told_in_compare_and_in_score(ram: Path) -> None:
    old, new = run_of(ram, "old"), run_of(ram, "new")
    metrics: Any = read_json(new.metrics)
    assert metrics["metrics"]["number_match"]["revision"] == 2
    assert "revision" not in metrics["metrics"]["exact_match"]
    plan: Any = read_json(old.plan)
    del plan["code"]["revisions"]  # as an earlier version wrote it
    old.plan.write_text(json.dumps(plan))
    merge(old)
    [said] = [line for line in find(old, new, [], False, None).warnings() if "definition" in line]
    next_ = f"next: hpcjobs score {old.root} --metric 'number_match'"
    assert said == f"number_match: the definition has changed between the scores of A and B; {next_}"
    told = rescore(old, [], None)["warnings"]
    assert told == ["the definition of number_match has changed since it was scored; its value was 0.0"]
    assert [line for line in find(old, new, [], False, None).warnings() if "definition" in line] == []
    assert rescore(old, [], None)["warnings"] == told, "once"


def test_what_is_normalized_by_numbers_is_defined_anew_too() -> None:
    names = ("exact_match", "f1", "majority(number_match)")
    assert revisions(TaskConfig(), find_metrics(names)) == {"majority(number_match)": 2}
    assert revisions(TaskConfig(normalize=("numbers",)), find_metrics(names)) == {
        "exact_match": 2, "majority(number_match)": 2,
    }  # fmt: skip
