"""A verb that is for another kind of run says what to type instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcjobs.paths import RunPaths
from hpcjobs.plan import make_script_plan

from .fake_slurm import Shell
from .runs import config_of, plan_run
from .trainings import plan_training

EVAL = "model: {name: tiny}\ntask: {prompt: x, target: y, metrics: [exact_match]}\n"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


@pytest.fixture
def trained(shell: Shell) -> RunPaths:
    return plan_training(shell.runs / "trained", 2)


@pytest.fixture
def script(shell: Shell) -> RunPaths:
    config = config_of(shell.home / "none.jsonl", {})
    draft = make_script_plan(config, ["-m", "json.tool"], shell.runs / "script")
    draft.write()
    return draft.paths


def refused(shell: Shell, *words: str) -> str:
    said = shell.run(*words)
    assert (said.code, said.out) == (2, ""), said
    return said.message


def test_the_scores_of_a_training_are_its_evals(shell: Shell, trained: RunPaths) -> None:
    told = refused(shell, "score", "trained")
    assert told == (
        f"{trained.root} is a train run: it has no samples to score; its model has to answer some first; "
        f"next: hpcjobs submit eval --model {trained.model}"
    )
    trained.then_eval.write_text(EVAL)
    assert f"an eval of its model starts when it is complete; next: hpcjobs status {trained.root}" in refused(
        shell, "score", "trained"
    )
    plan_run(trained.eval_after, 3)
    told = refused(shell, "score", "trained")
    assert told.endswith(f"those of its model are in {trained.eval_after}; next: hpcjobs score {trained.eval_after}")


def test_a_training_and_an_eval_are_not_compared(shell: Shell, trained: RunPaths) -> None:
    other = plan_run(shell.runs / "other", 3)
    for words, jobs in ((("trained", "other"), ("a train", "an eval")), (("other", "trained"), ("an eval", "a train"))):
        told = refused(shell, "compare", *words)
        roots = [shell.runs / word for word in words]
        said = "; ".join(f"{root} is {job} run" for root, job in zip(roots, jobs, strict=True))
        assert told.startswith(f"compare takes two runs of a kind: {said}; ")
    plan_run(trained.eval_after, 3)
    told = refused(shell, "compare", "trained", "other")
    assert told.endswith(f"next: hpcjobs compare {trained.eval_after} {other.root}")
    assert "is a generate run" in refused(
        shell, "compare", "trained", plan_run(shell.runs / "g", 3, "generate").root.name
    )


def test_a_script_has_neither(shell: Shell, trained: RunPaths, script: RunPaths) -> None:
    said = f"{script.root} is a script run: it has no samples to"
    see = f"see hpcjobs logs {script.root}"
    for other in ("trained", "script"):
        assert refused(shell, "compare", other, "script") == f"{said} compare; {see}"
        assert refused(shell, "compare", "script", other) == f"{said} compare; {see}"
    assert refused(shell, "score", "script") == f"{said} score; {see}"
