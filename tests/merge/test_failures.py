"""Samples that failed: without a completion, or with one that a metric did not score; mended without generating."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hpcjobs.commands.merge import exit_code, merge_and_report
from hpcjobs.commands.status import read_status
from hpcjobs.merge.eval import merge
from hpcjobs.merge.failures import Failures, is_of_failures
from hpcjobs.merge.score import rescore
from hpcjobs.metrics import find_metrics
from hpcjobs.requests import MetricError, SampleError
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.heartbeat import read_heartbeats
from hpcjobs.run_folder.journal.record import Record
from hpcjobs.run_folder.paths import RunPaths
from tests.fake_slurm import Shell
from tests.runs import hpcjobs, plan_run, records_in, run_ranks, said, settle_by_hand, write_journal

ROWS = 50
OWN = '''
class Length:
    """The length of an answer; three rows are too much for it."""

    name = "length"
    needs_target = False

    def score(self, completion, target, row):
        if row["id"] in {"row-3", "row-7", "row-20"}:
            raise ValueError("boom")
        return len(completion)
'''


def with_own_metric(ram: Path, monkeypatch: pytest.MonkeyPatch, **run: Any) -> RunPaths:
    """A finished run of two metrics: rows 18 and 37 have no completion, three have no score of `length`."""
    (ram / "lengths.py").write_text(OWN)
    monkeypatch.chdir(ram)
    monkeypatch.syspath_prepend(str(ram))
    task = {
        "prompt": "{{ question }} {{ 60 // divisor }}", "target": "{{ gold }}",
        "metrics": ["exact_match", "lengths:Length"],
    }  # fmt: skip
    paths = plan_run(ram / "run", ROWS, task=task, run={"heartbeat": 0.2} | run)
    run_ranks(paths, 2)
    return paths


def test_a_metric_that_raises_costs_its_own_scores_alone_and_score_brings_them_back(
    ram: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = with_own_metric(ram, monkeypatch)
    records = {record.index: record for path in paths.journals() for record in records_in(path)}
    assert [index for index, record in sorted(records.items()) if record.metric_errors] == [3, 7, 20]
    assert [index for index, record in sorted(records.items()) if record.error] == [18, 37]
    assert tuple(records[3].metric_errors) == (MetricError("length", "ValueError", "boom"),)
    assert sum(vitals.metric_errors for vitals in read_heartbeats(paths.heartbeats)) == 3
    merge_and_report(paths)
    assert exit_code(paths) == 3
    values = read_json(paths.metrics)
    assert (values["state"], values["complete"]) == ("incomplete", True)
    assert (values["counts"]["errors"], values["counts"]["metric_errors"]) == (2, 3)
    assert (values["metrics"]["exact_match"]["n"], values["metrics"]["length"]["n"]) == (ROWS, ROWS - 3)
    said_so = "length failed for 3 samples, which have no score of it: ValueError: boom (first: row-3)"
    assert said_so in values["warnings"]
    rows = pq.read_table(paths.results).to_pylist()
    assert rows[3]["metric_errors"] == [{"metric": "length", "type": "ValueError", "message": "boom"}]
    assert (rows[3]["error"], rows[3]["scores"]["length"], rows[4]["metric_errors"]) == (None, None, [])
    assert rows[3]["scores"]["exact_match"] == 1.0, "its answer is right, and the other metric sees that"
    page = paths.report.read_text()
    assert "3 of 50 samples have no score of a metric that failed" in page
    assert 'class="incomplete"' in page
    journals = {path: path.read_bytes() for path in paths.journals()}

    (ram / "lengths.py").write_text(OWN.replace("raise ValueError", "return 16 # "))
    mended = hpcjobs("score", paths.root)
    assert mended.returncode == 0, mended.stderr + mended.stdout
    assert read_json(paths.metrics)["metrics"]["length"]["n"] == ROWS
    assert read_json(paths.metrics)["counts"]["metric_errors"] == 0
    assert not [line for line in read_json(paths.metrics)["warnings"] if "length" in line]
    assert pq.read_table(paths.results).column("metric_errors").to_pylist() == [[]] * ROWS
    assert {path: path.read_bytes() for path in paths.journals()} == journals, "nothing was generated"


def test_above_the_limit_the_run_has_failed_everywhere(
    ram: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, shell = with_own_metric(ram, monkeypatch, max_errors=4), Shell(ram, monkeypatch, capsys)
    run = str(paths.root)
    merged = shell.run("merge", run)
    assert merged.code == 1
    why = "of 50 samples 2 have no completion and 3 have one that a metric failed on; run.max_errors is 4"
    assert f"failed: {why}; next: hpcjobs resume {run} --errors" in merged.err
    assert "n=47  FAILED" in merged.out
    assert "errors 2, metric errors 3" in merged.out
    status = json.loads(shell.run("status", run, "--json").out)
    assert (status["state"], status["metrics"]["state"], status["metrics"]["why"]) == ("failed", "failed", why)
    assert f"{why}: next: hpcjobs resume {run} --errors" in status["notes"]
    monkeypatch.setenv("HPCJOBS_RUNS", str(paths.root.parent))
    assert "failed, 50/50 samples" in shell.run("runs").out
    assert json.loads(shell.run("runs", "--json").out)["why"] == why
    page = paths.report.read_text()
    assert 'class="failed"' in page
    assert '<strong class="partial">FAILED</strong>' in page
    compared = shell.run("compare", run, run, "--json")
    assert compared.code == 1
    assert json.loads(compared.out)["b"]["state"] == "failed"
    assert f"B is failed: {why}" in shell.run("compare", run, run).err
    assert "NOT DECIDED" in shell.run("compare", run, run, "--gate", "exact_match=0").out
    assert shell.run("compare", run, run, "--allow-incomplete").code == 0


FAILED: dict[str, Any] = {"error": SampleError("ValueError", "no"), "finish_reason": "error", "completion": ""}
UNSCORED: dict[str, Any] = {
    "metric_errors": [MetricError("exact_match", "ValueError", "no")], "scores": {"exact_match": None, "contains": 1.0},
}  # fmt: skip
NAN: dict[str, Any] = {"scores": {"exact_match": math.nan, "contains": math.nan}}


@pytest.mark.parametrize(
    ("rows", "change", "why"),
    [
        (3, FAILED, "of 3 samples 3 have no completion; run.max_errors is 1.0"),
        (3, UNSCORED, "of 3 samples 3 have one that a metric failed on; run.max_errors is 1.0"),
        (3, NAN, "no sample has a score of exact_match, contains"),
        (0, {}, "there were no rows"),
    ],
)
def test_no_score_at_all_is_no_success_whatever_the_limit(
    ram: Path, rows: int, change: dict[str, Any], why: str
) -> None:
    paths = plan_run(ram / "run", rows, run={"heartbeat": 0.2, "max_errors": 1.0})
    write_journal(paths, [changed(record, change) for record in settle_by_hand(paths)])
    assert merge_and_report(paths).complete
    assert exit_code(paths) == 1
    assert (read_json(paths.metrics)["state"], read_json(paths.metrics)["why"]) == ("failed", why)
    status = read_status(paths)
    assert (status.state, status.exit_code()) == ("failed", 1)
    page = paths.report.read_text()
    assert 'class="failed"' in page
    assert why[1:] in page


def changed(record: Record, change: dict[str, Any]) -> Record:
    return Record(**{name: getattr(record, name) for name in record.__slots__} | change)


def test_each_sample_whose_target_does_not_render_is_named(ram: Path) -> None:
    """Case 38: score ended at the first of them."""
    paths = plan_run(ram / "run", ROWS)
    run_ranks(paths, 1)
    merge(paths)
    summary = rescore(paths, ["exact_match", "f1"], "{{ 60 // (index % 10) }}")
    assert summary["counts"] | {"errors": 2, "metric_errors": 5} == summary["counts"]
    unscored = [row["index"] for row in pq.read_table(paths.results).to_pylist() if row["metric_errors"]]
    assert unscored == [0, 10, 20, 30, 40]
    assert [summary["metrics"][name]["n"] for name in ("exact_match", "f1")] == [ROWS - 5] * 2
    names = [line for line in summary["warnings"] if "failed for 5 samples" in line]
    assert [line.split()[0] for line in names] == ["exact_match", "f1"]
    assert all("ZeroDivisionError" in line and "(first: row-0)" in line for line in names)


def test_errors_of_an_earlier_version_are_read_and_score_judges_them(ram: Path) -> None:
    """It wrote a metric's error to `error`, beside the completion, and 0 to all scores."""
    paths = plan_run(ram / "run", ROWS)
    records, worst = settle_by_hand(paths), {"exact_match": 0.0, "contains": 0.0}
    changes: dict[int, dict[str, Any]] = {
        4: {"error": SampleError("KeyError", "'x'"), "scores": worst},
        5: FAILED | {"scores": worst},
    }
    write_journal(paths, [changed(one, changes.get(one.index, {})) for one in records])
    assert merge(paths).complete
    assert (said(paths)["counts"]["errors"], said(paths)["counts"]["metric_errors"]) == (1, 1)
    before = pq.read_table(paths.results).to_pylist()
    assert before[4]["error"] == {"type": "KeyError", "message": "'x'"}
    assert any("as an earlier version of hpcjobs" in line for line in read_json(paths.metrics)["warnings"])
    summary = rescore(paths, ["contains"], "answer 4")
    after = pq.read_table(paths.results).to_pylist()
    assert (after[4]["error"], after[4]["scores"]["contains"]) == (None, 1.0)
    assert after[5]["error"] == before[5]["error"]
    assert summary["counts"] | {"errors": 1, "metric_errors": 0} == summary["counts"]
    assert summary["metrics"]["contains"]["n"] == ROWS
    assert [line for line in summary["warnings"] if is_of_failures(line)] == [
        "1 samples ended in an error and count 0 in every metric"
    ]


def test_a_metric_where_lower_is_better_leaves_errors_out_and_says_so() -> None:
    both = Failures(errors=3).warnings(find_metrics(["perplexity", "exact_match"]))
    assert both == ["3 samples ended in an error: they are left out of perplexity, and count 0 in exact_match"]
    alone = Failures(errors=3).warnings(find_metrics(["perplexity", "bits_per_byte"]))
    assert alone == ["3 samples ended in an error and are in no metric"]
    assert all(is_of_failures(line) for line in (*both, *alone))
    assert not is_of_failures("journal a-7.jsonl is not used: no settled claim names it")
