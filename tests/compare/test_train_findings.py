"""compare of two train runs at the command line: text, JSON, gates, exit codes, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.run_folder.files import read_json, write_json
from hpcjobs.run_folder.paths import RunPaths
from tests.compare.test_train import steps, training
from tests.fake_slurm import Said, Shell
from tests.trainings import plan_training, record


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


@pytest.fixture
def a(tmp_path: Path) -> RunPaths:
    return training(tmp_path / "runs" / "a", steps(8))


@pytest.fixture
def b(tmp_path: Path) -> RunPaths:
    """The same rows at another learning rate: better by 0.05 from step 3 on, half as fast, two steps longer."""
    records = [
        record(step, loss=1 / step - (0.05 if step > 2 else 0), seconds=1.0, eval_loss=0.5 if step == 10 else None)
        for step in range(1, 11)
    ]
    return training(tmp_path / "runs" / "b", records, 10, learning_rate=2e-3, max_steps=10)


def values(shell: Shell, *words: str) -> tuple[int, dict[str, Any]]:
    said = shell.run("compare", *words, "--json")
    found: dict[str, Any] = json.loads(said.out)
    return said.code, found


def test_for_people(shell: Shell, a: RunPaths, b: RunPaths) -> None:
    said = shell.run("compare", "a", "b", "--gate", "loss=0", "--gate", "tokens_per_s=99")
    assert said.code == 1
    lines = said.out.splitlines()
    assert lines[0] == f"A       complete, 8/8 steps, model tiny  {a.root}"
    assert lines[2].split() == ["A", "B", "B", "-", "A"]
    table = {line[:16].strip(): line[16:].split() for line in lines[3:14]}
    assert table["loss"] == ["0.125", "0.05", "-0.075", "-60.0%", "step", "8,", "10"]
    assert table["eval_loss"] == ["0.25", "0.5", "+0.25", "+100.0%", "step", "8,", "10"]
    assert table["tokens/s"] == ["200", "100", "-100", "-50.0%"]
    assert table["tokens/s a rank"] == ["100", "50", "-50", "-50.0%"]
    assert table["steps"] == ["8", "10", "+2", "+25.0%"]
    assert table["samples read"] == ["16", "20", "+4", "+25.0%"]
    assert table["ranks"] == ["2", "2"]
    assert "config  train.learning_rate: 0.001 -> 0.002" in lines
    assert "curve   8 steps in both: the loss differs from step 3, by more than 1e-05 from step 3" in lines
    assert any(line.startswith("        most at step ") and line.endswith("-0.05") for line in lines)
    assert "batches the same samples in the same order, in all 8 steps" in lines
    assert "gate    loss: passed: B is not higher" in lines
    assert lines[-1] == "gate    tokens_per_s: REGRESSION: B is lower by 100, more than 99"
    assert said.err == "warning: the last loss is that of step 8 in A, and of step 10 in B\n"


def test_the_same_run_twice(shell: Shell, a: RunPaths) -> None:
    said = shell.run("compare", "a", "a", "--gate", "eval_loss=0", "--gate", "best_eval_loss=0")
    assert said.code == 0
    assert "config  the same in all keys that matter to a training" in said.out
    assert "curve   8 steps in both: every loss is the same, bit for bit" in said.out
    assert said.err == "warning: A and B are the same run\n"


def test_as_json(shell: Shell, a: RunPaths, b: RunPaths) -> None:
    code, found = values(shell, "a", "b", "--out", "steps.jsonl")
    assert code == 0
    assert (found["job"], found["a"]["run"], found["b"]["rows"], found["b"]["world_sizes"]) == ("train", "a", 10, [2])
    assert found["values"]["best_eval_loss"] == {
        "a": 0.25, "b": 0.5, "difference": 0.25, "a_step": 8, "b_step": 10,
    }  # fmt: skip
    assert found["values"]["tokens"] == {"a": 800, "b": 1000, "difference": 200}
    assert found["config"]["train.max_steps"] == {"a": 8, "b": 10}
    curve = found["curve"]
    assert (curve["steps"], curve["first_difference"], curve["first_beyond"], curve["beyond"]) == (8, 3, 3, 1e-5)
    assert curve["greatest"]["difference"] == pytest.approx(-0.05)
    assert curve["last"] == {"step": 8, "a": 0.125, "b": 1 / 8 - 0.05, "difference": 1 / 8 - 0.05 - 0.125}
    assert found["batches"] == {"compared": 8, "same": 8, "first_other": None}
    assert (found["same_data"], found["steps_file"]) == (True, "steps.jsonl")
    lines = [json.loads(line) for line in (shell.home / "steps.jsonl").read_text().splitlines()]
    assert [(line["step"], line["a"]["loss"]) for line in lines] == [(step, 1 / step) for step in range(1, 9)]


@pytest.mark.parametrize(
    ("gates", "code"),
    [
        (["eval_loss=0.25"], 0), (["eval_loss=0.2"], 1), (["best_eval_loss=0.2", "loss=0"], 1),
        (["tokens_per_s=100"], 0), (["loss=0", "tokens_per_s=200"], 0),
    ],
)  # fmt: skip
def test_gates_by_exit_code(shell: Shell, a: RunPaths, b: RunPaths, gates: list[str], code: int) -> None:
    words = [word for gate in gates for word in ("--gate", gate)]
    found = values(shell, "a", "b", *words)
    assert found[0] == code
    assert [gate["metric"] for gate in found[1]["gates"]] == [gate.partition("=")[0] for gate in gates]


def test_an_incomplete_run_leaves_gates_undecided(shell: Shell, a: RunPaths, tmp_path: Path) -> None:
    going = training(tmp_path / "runs" / "going", steps(5))
    said = shell.run("compare", "a", "going", "--gate", "loss=10")
    assert said.code == 3
    assert (
        "gate    loss: NOT DECIDED: incomplete: B; --allow-incomplete decides by the steps that there are" in said.out
    )
    assert f"B is incomplete, 5/8 steps; next: hpcjobs status {going.root}" in said.err
    assert shell.run("compare", "a", "going", "--gate", "loss=10", "--allow-incomplete").code == 0
    assert shell.run("compare", "a", "going", "--gate", "loss=0", "--allow-incomplete").code == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--gate", "los=0.1"], "did you mean 'loss'?); both have: loss, eval_loss, best_eval_loss, tokens_per_s;"),
        (["--gate", "exact_match=0.1"], "these are what a train run is held to"),
        (["--gate", "loss"], "write it as METRIC=NUMBER"),
        (["--out", "runs/a/x"], "is inside the run"),
        (["--out", "none/x"], "in a folder that does not exist"),
    ],
)
def test_wrong_usage(shell: Shell, a: RunPaths, b: RunPaths, words: list[str], told: str) -> None:
    said = shell.run("compare", "a", "b", *words)
    assert (said.code, said.out) == (2, "")
    assert told in said.message


def test_a_run_without_validation_has_no_such_gate(shell: Shell, a: RunPaths, tmp_path: Path) -> None:
    training(tmp_path / "runs" / "plain", steps(8, eval_loss=None))
    assert "both have: loss, tokens_per_s" in shell.run("compare", "a", "plain", "--gate", "eval_loss=1").message
    code, found = values(shell, "a", "plain")
    assert found["values"]["eval_loss"] == {"a": 0.25, "b": None, "difference": None, "a_step": 8, "b_step": None}
    assert (code, "eval_loss                  0.25              -" in shell.run("compare", "a", "plain").out) == (
        0,
        True,
    )


def test_what_stands_in_no_config_is_warned_of(shell: Shell, a: RunPaths, tmp_path: Path) -> None:
    other = training(tmp_path / "runs" / "other", steps(8))
    plan = read_json(other.plan)
    plan["data"]["sha256"] = plan["model"]["weights_sha256"] = plan["code"]["hpcjobs_sha256"] = "0" * 64
    write_json(other.plan, plan)
    code, found = values(shell, "a", "other")
    assert (code, found["same_data"], found["batches"]) == (0, False, None)
    data, model, code_said = found["warnings"]
    assert "the data sets are not the same" in data
    assert "the model tiny was not the same: weights_sha256 " in model
    assert code_said.startswith("hpcjobs itself was not the same: ")
    said = shell.run("compare", "a", "other")
    assert "batches not compared: the data sets are not the same" in said.out


def test_steps_that_no_two_runs_share(shell: Shell, a: RunPaths, tmp_path: Path) -> None:
    training(tmp_path / "runs" / "late", [record(9), record(10)], 10)
    code, found = values(shell, "a", "late")
    assert (code, found["curve"]["steps"], found["curve"]["greatest"], found["curve"]["last"]) == (0, 0, None, None)
    said: Said = shell.run("compare", "a", "late")
    assert "curve   no step is in both" in said.out
    assert "batches not compared: of no step are all ranks' samples known on both sides" in said.out


def test_other_batches_are_said(shell: Shell, a: RunPaths, tmp_path: Path) -> None:
    records = [record(step, samples=[step + 100 * (step > 6)]) for step in range(1, 9)]
    training(tmp_path / "runs" / "shuffled", records)
    assert (
        "batches other samples from step 7 on; 6 of 8 steps have the same ones"
        in shell.run("compare", "a", "shuffled").out
    )


def test_a_loss_that_is_no_number_is_null(shell: Shell, a: RunPaths, tmp_path: Path) -> None:
    training(tmp_path / "runs" / "nan", [*steps(7), record(8, loss=float("nan"))])
    code, found = values(shell, "a", "nan")
    assert (code, found["curve"]["first_beyond"], found["curve"]["last"]["b"]) == (0, 8, None)
    assert found["values"]["loss"]["b"] is None


def test_before_the_first_step(shell: Shell, a: RunPaths, tmp_path: Path) -> None:
    plan_training(tmp_path / "runs" / "planned", 2)
    said = shell.run("compare", "a", "planned")
    assert (said.code, "has not finished a step yet; next: hpcjobs status" in said.message) == (2, True)
