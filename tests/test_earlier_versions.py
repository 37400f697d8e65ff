"""Runs made by an earlier version, kept in tests/old_runs/: every verb still works on them.

0.1.tar.xz was made by commit 63260e0, the last before the files moved into packages: `eval` and `cancelled` (12 rows,
dummy engine, 2 local ranks), `train` and `tuned` (3 steps), without logs and weights; @RUNS@ stands for the runs root.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.fake_slurm import Shell

OLD = Path(__file__).parent / "old_runs" / "0.1.tar.xz"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    shell = Shell(tmp_path, monkeypatch, capsys)
    with tarfile.open(OLD) as archive:
        archive.extractall(shell.runs, filter="data")
    for path in shell.runs.rglob("*.*"):
        if path.suffix in (".json", ".yaml", ".jsonl"):
            path.write_text(path.read_text().replace("@RUNS@", str(shell.runs)))
    return shell


def test_they_are_listed_with_their_states(shell: Shell) -> None:
    rows = shell.run("runs").out.splitlines()
    states = {row.split()[2]: row for row in rows}
    assert "complete, 12/12 samples" in states["eval"]
    assert "cancelled, 4/12 samples" in states["cancelled"] or "incomplete, 4/12 samples" in states["cancelled"]
    assert "3/3 steps" in states["train"]


@pytest.mark.parametrize(("run", "code"), [("eval", 0), ("cancelled", 3)])
def test_merge_gives_the_same_table(shell: Shell, run: str, code: int) -> None:
    results = shell.runs / run / "results.parquet"
    before = pq.read_table(results)
    assert shell.run("merge", run).code == code
    assert pq.read_table(results).select(before.column_names).equals(before), "columns are added, none is changed"
    assert (shell.runs / run / "report.html").is_file()


def test_score_gives_the_same_values(shell: Shell) -> None:
    metrics = shell.runs / "eval" / "metrics.json"
    before = json.loads(metrics.read_text())["metrics"]
    assert shell.run("score", "eval").code == 0
    assert json.loads(metrics.read_text())["metrics"] == before


def test_score_and_compare_say_where_an_earlier_version_wrote_another_value(shell: Shell) -> None:
    metrics = shell.runs / "eval" / "metrics.json"
    values = json.loads(metrics.read_text())
    right = values["metrics"]["exact_match"]["value"]
    values["metrics"]["exact_match"]["value"] = 0.75
    metrics.write_text(json.dumps(values))
    scored = shell.run("score", "eval", "--metric", "exact_match", "--metric", "number_match")
    assert scored.code == 0
    said = f"scored again: exact_match is {right:.4f} (n=12), and hpcjobs 0.1.0 wrote 0.7500 (n=12)"
    assert said in json.loads(metrics.read_text())["warnings"]
    assert said in scored.out
    assert "scored again" not in shell.run("compare", "eval", "eval").err
    again = shell.run("score", "eval")
    assert again.out.count("scored again") == 1, "it is told of the earlier version alone"
    shell.run("score", "eval", "--metric", "number_match")
    values = json.loads(metrics.read_text())
    del values["provenance"]["scoring"]
    metrics.write_text(json.dumps(values))
    compared = shell.run("compare", "eval", "eval")
    assert compared.code == 0
    assert "number_match of A may be other values now" in compared.err


@pytest.mark.parametrize("run", ["eval", "cancelled", "train"])
def test_status_and_report_work(shell: Shell, run: str) -> None:
    status = shell.run("status", run, "--json")
    assert status.code == 0, status.err
    assert json.loads(status.out)["run"] == run
    assert shell.run("report", run).code == 0


def test_two_evals_are_compared(shell: Shell) -> None:
    found = shell.run("compare", "cancelled", "eval", "--json")
    assert found.code == 0, found.err
    assert json.loads(found.out)["common"] == 4


def test_two_trainings_are_compared(shell: Shell) -> None:
    found = shell.run("compare", "train", "tuned")
    assert found.code == 0, found.err
    assert "config  train.learning_rate: 0.001 -> 0.002" in found.out
    assert "3 steps in both" in found.out


def test_an_incomplete_run_is_resumed(shell: Shell) -> None:
    resumed = shell.process("resume", "cancelled", "--wait", "--yes")
    assert resumed.code == 0, resumed.err
    rows = pq.read_table(shell.runs / "cancelled" / "results.parquet")
    done = pq.read_table(shell.runs / "eval" / "results.parquet")
    assert rows["completion"].equals(done["completion"])
    assert rows["id"].equals(done["id"])
