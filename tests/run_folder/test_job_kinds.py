"""A verb that is for another kind of run says what to type instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcjobs.plan.script import make_script_plan
from hpcjobs.run_folder.paths import RunPaths, runs_root
from tests.fake_slurm import Shell
from tests.runs import config_of, plan_run
from tests.trainings import journal, plan_training, record

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
    plan_run(trained.eval_of(), 3)
    told = refused(shell, "score", "trained")
    assert told.endswith(f"those of its model are in {trained.eval_of()}; next: hpcjobs score {trained.eval_of()}")


def test_a_training_and_an_eval_are_not_compared(shell: Shell, trained: RunPaths) -> None:
    other = plan_run(shell.runs / "other", 3)
    for words, jobs in ((("trained", "other"), ("a train", "an eval")), (("other", "trained"), ("an eval", "a train"))):
        told = refused(shell, "compare", *words)
        roots = [shell.runs / word for word in words]
        said = "; ".join(f"{root} is {job} run" for root, job in zip(roots, jobs, strict=True))
        assert told.startswith(f"compare takes two runs of a kind: {said}; ")
    plan_run(trained.eval_of(), 3)
    told = refused(shell, "compare", "trained", "other")
    assert told.endswith(f"next: hpcjobs compare {trained.eval_of()} {other.root}")
    told = refused(shell, "compare", "other", "trained")
    assert told.endswith(f"next: hpcjobs compare {other.root} {trained.eval_of()}")
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


def test_verify_takes_a_config_and_no_training(shell: Shell, trained: RunPaths) -> None:
    sizes = ("--world-sizes", "1,2")
    told = refused(shell, "verify", "x.yaml", *sizes, "--job", "train")
    assert "verify compares answers, and a training has none" in told
    assert "hpcjobs compare A B" in told
    for name in ("trained", str(trained.root)):
        told = refused(shell, "verify", name, *sizes)
        assert (
            told
            == f"verify takes a config, and {name} is a run: that of the run is {RunPaths(runs_root() / name).config}"
        )
    assert "config file x.yaml does not exist" in refused(shell, "verify", "x.yaml", *sizes)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--array", "2"], "its ranks go in step, and those of an array do not: leave --array out"),
        (["--set", "model.engine=dummy"], "model.engine dummy has nothing to learn: name a model"),
        (["--set", "model.gpus_per_rank=2"], "a model that needs more GPUs is sharded, train.fsdp.enabled"),
    ],
)
def test_what_no_training_can_have(shell: Shell, words: list[str], told: str) -> None:
    said = refused(shell, "submit", "train", "--executor", "local", *words)
    assert said.startswith("for a train run ")
    assert said.endswith(told)


def test_a_training_does_not_go_on_as_an_array(shell: Shell, trained: RunPaths) -> None:
    before = trained.config.read_bytes()
    assert "leave --array out" in refused(shell, "resume", "trained", "--array", "2", "--yes")
    assert trained.config.read_bytes() == before
    assert shell.slurm.calls("sbatch") == []


def test_a_small_loss_is_told_with_its_step(shell: Shell, trained: RunPaths) -> None:
    journal(trained, [record(step, loss=4e-5 * step) for step in range(1, 9)])
    said = shell.run("merge", "trained")
    assert said.code == 3
    assert said.out.splitlines()[0] == "loss             0.00032  step 8  INCOMPLETE"
    assert "loss 0.00032" in shell.run("runs").out


def test_a_merge_before_the_first_step_says_so(shell: Shell, trained: RunPaths) -> None:
    assert "warning: no step is done, and the rows are not tokenised yet" in shell.run("merge", "trained").out
