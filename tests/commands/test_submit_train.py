"""submit train by the command line: interrupted, started again by itself, merged, reported, evaluated."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.commands.status import read_status
from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.config.yaml import dump_yaml
from hpcjobs.errors import ConfigError, DataError
from hpcjobs.launch.slurm import clean_environment
from hpcjobs.merge.train import merge_train
from hpcjobs.plan.train import make_train_plan
from hpcjobs.run_folder.heartbeat import read_heartbeats
from hpcjobs.run_folder.paths import RunPaths
from tests.runs import cancelled_at_end, wait_for
from tests.trainings import ROWS, plan_training, run_training, train_config

EVAL: dict[str, Any] = {
    "model": {"name": "nothing"},
    "data": {"name": "canned_50_quick", "max_samples": 8},
    "task": {
        "messages": [{"role": "user", "content": "{{ question }}"}], "target": "{{ answer }}",
        "generation": {"max_new_tokens": 16}, "metrics": ["exact_match"],
    },
}  # fmt: skip


def hpcjobs(*words: str | Path, code: int = 0) -> str:
    """The command as a user types it; its output."""
    env = clean_environment() | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "hpcjobs", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=env, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.model
def test_a_training_that_is_killed_ends_with_a_model_a_report_and_its_eval(tmp_path: Path) -> None:
    """A rank is killed on the way: the supervisor's merge starts the rest, and at the end the evals."""
    data, after, folder = tmp_path / "rows.jsonl", tmp_path / "after.yaml", tmp_path / "run"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    after.write_text(dump_yaml(EVAL))
    config = tmp_path / "train.yaml"
    more: dict[str, Any] = {"then_eval": str(after), "then_eval_every": 60}
    train = train_config(data, 2, init="pretrained", max_steps=150, checkpoint_every=20, **more)
    config.write_text(dump_yaml(train.model_dump(mode="json") | {"run": {"heartbeat": 0.2, "lease_timeout": 20.0}}))
    said = hpcjobs("submit", "train", "--config", config, "--run-dir", folder, "--executor", "local", "--yes")
    assert "batch   12 a step: 2 x at most 2, 3 times" in said
    assert f"then    eval of model/ by {after}" in said
    paths = RunPaths(folder)
    with cancelled_at_end(paths):
        status = wait_for(lambda: status_of(folder, 30), "thirty steps", 120)
        assert {"loss", "learning_rate", "grad_norm", "tokens_per_s", "eval_loss"} <= status["step"].keys()
        victim = next(v for v in read_heartbeats(paths.heartbeats) if v.rank == 1)
        os.kill(victim.identity["pid"], signal.SIGSTOP)  # or a busy machine ends the training before its status is read
        said = hpcjobs("status", folder)
        assert re.search(r"step +\d+: loss [\d.e-]+, learning_rate .*tokens/s a rank", said)
        assert "rate  last step" in said
        os.kill(victim.identity["pid"], signal.SIGKILL)
        wait_for(lambda: status_of(folder, 150, "complete"), "the end", 180)
    launches = json.loads(paths.submission.read_text())["launches"]
    assert [launch["automatic"] for launch in launches] == [False, True]
    metrics = json.loads(paths.metrics.read_text())
    assert metrics["complete"]
    assert metrics["train"]["then_eval"] == str(paths.eval_of())
    assert metrics["train"]["model"] == str(paths.model)
    page = paths.report.read_text()
    assert "Loss by step" in page
    assert 'class="loss"' in page
    assert "150 of 150 steps are done, and model/ is written." in page
    with cancelled_at_end(RunPaths(paths.eval_of())):
        evals = wait_for(lambda: evals_done(folder, 3), "the evals", 180)
    assert [one["step"] for one in evals] == [60, 120, None]
    for one in evals:
        evaluated = json.loads((Path(one["run"]) / "metrics.json").read_text())
        assert evaluated["provenance"]["model"]["name"] == one["model"]
        assert one["metrics"] == {"exact_match": evaluated["metrics"]["exact_match"]["value"]}
    assert re.search(r"eval +step 60: complete, exact_match \d\.\d{4} ", hpcjobs("status", folder))
    hpcjobs("report", folder)
    assert 'href="../run-eval-step-00000060/report.html"' in paths.report.read_text()
    shutil.rmtree(paths.eval_of(60))  # as if it could not be queued
    said = hpcjobs("resume", folder)
    assert "is complete: nothing to resume" in said
    assert f"eval    {paths.eval_of(60)}: supervisor" in said
    with cancelled_at_end(RunPaths(paths.eval_of(60))):
        wait_for(lambda: evals_done(folder, 3), "the eval that was missing", 120)


@pytest.mark.model
def test_an_eval_that_cannot_be_started_is_failed_with_its_reason(tmp_path: Path) -> None:
    """Its data file is gone by then. Once it is back, resume starts the eval (case 52)."""
    rows, after, folder = tmp_path / "rows.jsonl", tmp_path / "after.yaml", tmp_path / "run"
    content = "".join(json.dumps(row) + "\n" for row in ROWS)
    rows.write_text(content)
    after.write_text(dump_yaml(EVAL | {"data": {"name": str(rows)}, "cluster": {"executor": "local"}}))
    paths = plan_training(folder, init="pretrained", max_steps=1, then_eval=str(after))
    rows.unlink()
    run_training(paths, 1)
    assert merge_train(paths).complete
    hpcjobs("resume", folder, code=2)
    [eval_] = json.loads(hpcjobs("status", folder, "--json"))["evals"]
    assert eval_["state"] == "failed"
    assert "rows.jsonl" in eval_["reason"]
    assert eval_["reason"].endswith(f"; next: hpcjobs resume {folder}")
    said = hpcjobs("status", folder)
    assert "eval    model/: failed" in said
    assert eval_["reason"] in said
    hpcjobs("report", folder)
    assert "rows.jsonl" in paths.report.read_text()
    rows.write_text(content)
    hpcjobs("resume", folder)
    with cancelled_at_end(RunPaths(paths.eval_of())):
        assert json.loads(hpcjobs("status", folder, "--json"))["evals"][0]["state"] in ("going", "complete")


def status_of(folder: Path, done: int, state: str | None = None) -> dict[str, Any] | None:
    """The status, once so many steps or samples are done and it is in that state."""
    if not (folder / "submission.json").exists():
        return None
    value = read_status(RunPaths(folder)).values()
    return value if value["done"] >= done and state in (None, value["state"]) else None


def evals_done(folder: Path, number: int) -> list[dict[str, Any]] | None:
    """The evals of a training, once so many are complete."""
    evals: list[dict[str, Any]] = json.loads(hpcjobs("status", folder, "--json"))["evals"]
    return evals if [one["state"] for one in evals] == ["complete"] * number else None


def test_nobody_joins_a_training(tmp_path: Path) -> None:
    paths = plan_training(tmp_path / "run")
    assert "its ranks go in step, nobody can join them" in hpcjobs("join", paths.root, "--nodes", "1", code=2)


def test_a_resume_at_a_world_size_that_cannot_be_is_refused(tmp_path: Path) -> None:
    paths = plan_training(tmp_path / "run", 4)
    said = hpcjobs("resume", paths.root, "--executor", "local", "--ntasks-per-node", "5", code=2)
    assert "train.global_batch 12 does not divide by 5 ranks: set it to 10 or 15" in said
    assert not paths.submission.exists()


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({"global_batch": 13}, "13 does not divide by 4 ranks: set it to 12 or 16, or use 1, 13 ranks"),
        ({"then_eval_every": 5}, "then_eval_every is for evals by train.then_eval, which is not set"),
        ({"then_eval": "none.yaml"}, "train.then_eval: there is no file none.yaml"),
        ({"accelerate_config": "none.yaml"}, "train.accelerate_config: there is no file none.yaml"),
        ({"validation_split": "test"}, "is one file, without splits"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_queued(
    tmp_path: Path, train: dict[str, Any], said: str
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    with pytest.raises(ConfigError, match=said):
        make_train_plan(train_config(data, 4, **train), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rows_that_cannot_be_learned_from_are_said(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("")
    with pytest.raises(DataError, match="has no rows to learn from"):
        make_train_plan(train_config(data), tmp_path / "run")
    data.write_text('{"question": "x", "answer": null}\n')
    with pytest.raises(DataError, match=r"the first row .* cannot be learned from"):
        make_train_plan(train_config(data), tmp_path / "run")


def test_a_bad_eval_config_is_refused_before_the_training(tmp_path: Path) -> None:
    data, after = tmp_path / "rows.jsonl", tmp_path / "after.yaml"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    after.write_text(dump_yaml(EVAL | {"task": EVAL["task"] | {"target": "{{ anwser }}"}}))
    with pytest.raises(ConfigError, match="did you mean 'answer'"):
        make_train_plan(train_config(data, then_eval=str(after)), tmp_path / "run")


def test_the_plan_shows_the_shape_of_the_eval_and_warns_where_it_has_no_gpu(tmp_path: Path) -> None:
    data, after = tmp_path / "rows.jsonl", tmp_path / "after.yaml"
    data.write_text("".join(json.dumps(row | {"hint": None if n == 3 else "h"}) + "\n" for n, row in enumerate(ROWS)))
    after.write_text(dump_yaml(EVAL))
    config = train_config(data, then_eval=str(after))
    lines = make_train_plan(config, tmp_path / "run").plan.summary()
    assert f"then    eval of model/ by {after}: 1 node x 1 task = 1 rank on CPU" in lines
    assert not any(line.startswith("note") for line in lines)
    messages = ({"role": "user", "content": "{{ question }} {{ hint }}"},)
    values = config.model_dump() | {"cluster": {"gpus": 2}}
    values["task"] |= {"messages": messages}
    lines = make_train_plan(validate(Layer(values)), tmp_path / "run").plan.summary()
    assert f"note    the training has GPUs, and its eval has none: set cluster.gpus in {after}" in lines
    assert any("column 'hint' is null in 1 of 60 rows, the first is row 3" in line for line in lines)


def test_the_shipped_configs_are_plans(tmp_path: Path) -> None:
    """From a folder that has no configs/: what train_tiny.yaml names is found where it is shipped."""
    from hpcjobs.config.resolve import defaults_folder, resolve

    for name in ("train", "train_tiny"):
        config, _ = resolve("train", defaults_folder() / f"{name}.yaml", None, [])
        draft = make_train_plan(config, tmp_path / name)
        assert draft.plan.job == "train"
    assert str(draft.plan.train.then_eval).endswith("configs/eval.yaml")
    assert draft.plan.rows == 48_000


@pytest.mark.parametrize(
    ("rows", "train", "said"),
    [
        (12, {}, None),
        (11, {}, "is 12, and there are 11 rows: each step goes 1.09 times over the data; for one pass in several"),
        (20, {"validation_fraction": 0.5}, "there are 10 rows: each step goes 1.2 times"),
        (1, {"packing": True}, "there are 1 row (fewer when packed): each step goes 12 times"),
    ],
)
def test_a_batch_of_more_than_all_rows_is_noted(
    tmp_path: Path, rows: int, train: dict[str, Any], said: str | None
) -> None:
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[:rows]))
    plan = make_train_plan(train_config(tmp_path / "d.jsonl", **train), tmp_path / "run").plan
    found = [line for line in plan.summary() if "train.global_batch" in line]
    assert len(found) == (said is not None)
    assert said is None or said in found[0]
