"""Training on a real Slurm cluster: preempted, cut off by its time limit, its ranks and nodes killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.config.yaml import dump_yaml
from hpcjobs.run_folder.files import sha256_of
from hpcjobs.run_folder.heartbeat import Vitals, read_heartbeats
from tests.slurm.site import Site
from tests.trainings import ROWS, bits, curve_of, samples_by_step, weights_hash

pytestmark = pytest.mark.model
STEPS = 300
FOUR = ("--nodes", "2", "--ntasks-per-node", "2", "--gpus", "0", "--cpus-per-task", "1")

EVAL = {
    "data": {"name": "canned_50_quick", "max_samples": 8},
    "task": {
        "messages": [{"role": "user", "content": "{{ question }}"}], "target": "{{ answer }}",
        "generation": {"max_new_tokens": 8}, "metrics": ["exact_match"],
    },
}  # fmt: skip


def config_file(site: Site, steps: int, **train: Any) -> str:
    """A config of twelve samples a step on random weights; its path."""
    data = site.folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    section = {
        "init": "random", "max_steps": steps, "global_batch": 12, "micro_batch": 2, "learning_rate": 0.0003,
        "checkpoint_every": 10,
    }  # fmt: skip
    values = {
        "model": {"name": "tiny"},
        "data": {"name": str(data)},
        "task": {"messages": [{"role": "user", "content": "{{ question }}"}], "target": "{{ answer }}"},
        "run": {"heartbeat": 0.5, "lease_timeout": 20.0},
        "train": section | train,
        "cluster": {"env": {"OMP_NUM_THREADS": "1"}},
    }
    path = site.folder / f"train{steps}.yaml"
    path.write_text(dump_yaml(values))
    return str(path)


def submit(site: Site, name: str, config: str, *more: str, shape: Sequence[str] = FOUR) -> None:
    site.hpcjobs("submit", "train", "--config", config, *shape, "--name", name, "--yes", *more)


def until_complete(site: Site, name: str, timeout: float = 240.0) -> None:
    def look() -> bool:
        status = site.look(name)
        return status.state == "complete" and not status.going

    site.until(f"{name} to be complete", look, timeout)


def step(site: Site, name: str) -> int:
    return site.look(name).done


@pytest.fixture(scope="module")
def undisturbed(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """300 steps on 2 x 2 ranks that nothing happened to, as run `calm`."""
    site = Site(cluster, tmp_path_factory.mktemp("calm"))
    submit(site, "calm", config_file(site, STEPS), "--wait")
    return site


def same(site: Site, name: str, calm: Site) -> None:
    """The run ended as the undisturbed one did, bit for bit."""
    paths, other = site.paths(name), calm.paths("calm")
    assert bits(curve_of(paths)) == bits(curve_of(other))
    assert samples_by_step(paths) == samples_by_step(other)
    assert weights_hash(paths) == weights_hash(other)


def test_two_nodes_are_as_one_process(undisturbed: Site, site: Site) -> None:
    submit(site, "one", config_file(site, STEPS), "--wait", shape=("--nodes", "1", "--ntasks-per-node", "1"))
    alone, together = curve_of(site.paths("one")), curve_of(undisturbed.paths("calm"))
    assert len(together) == STEPS
    assert [r.loss for r in together] == pytest.approx([r.loss for r in alone], abs=1e-5)
    assert samples_by_step(undisturbed.paths("calm")) == samples_by_step(site.paths("one"))
    status = undisturbed.status("calm")
    assert status["state"] == "complete"
    assert {"loss", "learning_rate", "grad_norm", "tokens_per_s"} <= status["step"].keys()


def test_preempted_and_requeued_no_step_is_repeated_or_skipped(undisturbed: Site, site: Site) -> None:
    submit(site, "low", config_file(site, STEPS))
    site.until("some steps", lambda: step(site, "low") >= 25, 120)
    urgent = site.run("sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--exclusive", "--wrap=sleep 3").stdout
    until_complete(site, "low")
    assert site.cluster.sacct(urgent.strip())[0]["State"] == "COMPLETED"
    attempts = {path.stem.rpartition("-")[0] for path in site.paths("low").journals()}
    assert len(attempts) == 2, "it was not preempted"
    assert site.metrics("low")["train"]["steps_run_again"] == 0
    same(site, "low", undisturbed)


def newest(site: Site, name: str) -> list[Vitals]:
    """The ranks of the newest attempt that has some."""
    vitals = read_heartbeats(site.paths(name).heartbeats)
    return [v for v in vitals if v.attempt == vitals[-1].attempt]


@pytest.mark.parametrize("victim", ["a rank", "rank 0", "a node", "all"])
def test_whatever_is_killed_the_run_goes_on_by_itself(undisturbed: Site, site: Site, victim: str) -> None:
    """SIGKILL of a rank, of rank 0, of a node with all on it, of every rank: the merge job starts the rest again."""
    submit(site, "k", config_file(site, STEPS))
    site.until("some steps", lambda: step(site, "k") >= 60, 120)
    ranks = {v.rank: v for v in newest(site, "k")}
    if victim == "a node":
        site.cluster.kill_node("node2")
        site.until("the others", lambda: all(v.ended_at for v in newest(site, "k") if v.host == "node1"), 120)
        site.cluster.start_node("node2")
    else:
        for rank in {"a rank": [3], "rank 0": [0], "all": [0, 1, 2, 3]}[victim]:
            os.kill(ranks[rank].identity["pid"], signal.SIGKILL)
    until_complete(site, "k", 360)
    same(site, "k", undisturbed)
    starts = json.loads(site.paths("k").submission.read_text())["launches"]
    assert [start["automatic"] for start in starts][:2] == [False, True] or victim == "a node"
    if victim == "a node":
        said = [v.first_error or "" for v in read_heartbeats(site.paths("k").heartbeats)]
        assert any("on node2 (no sign of life)" in error and "was lost" in error for error in said), said
    if victim in ("a rank", "rank 0"):
        lost = 3 if victim == "a rank" else 0
        said = [v.first_error for v in read_heartbeats(site.paths("k").heartbeats) if v.first_error]
        assert any(f"rank {lost} on {ranks[lost].host} (ended by SIGKILL) was lost" in error for error in said)


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_resume_on_another_shape_runs_the_same_samples_in_the_same_order(
    undisturbed: Site, site: Site, ranks: int
) -> None:
    """2 x 2 ranks, cancelled on the way, go on as 1 x 1 and as 1 x 3; the global batch stays what it is."""
    submit(site, "r", config_file(site, STEPS))
    site.until("some steps", lambda: step(site, "r") >= 40, 120)
    site.hpcjobs("cancel", "r")
    site.until("its ranks to leave", lambda: site.look("r").over and not site.look("r").going, 120)
    done = step(site, "r")
    assert 40 <= done < STEPS
    said = site.hpcjobs("resume", "r", "--nodes", "1", "--ntasks-per-node", str(ranks), "--yes")
    each = {1: "1 x at most 2, 6 times", 3: "3 x at most 2, 2 times"}[ranks]
    assert f"{done} of {STEPS} steps are done; 1 node x {ranks}" in said
    assert each in said
    until_complete(site, "r")
    curve, calm = curve_of(site.paths("r")), curve_of(undisturbed.paths("calm"))
    assert [record.world_size for record in curve] == [4] * done + [ranks] * (STEPS - done)
    assert site.metrics("r")["train"]["steps_run_again"] == 0
    assert samples_by_step(site.paths("r")) == samples_by_step(undisturbed.paths("calm"))
    assert [r.loss for r in curve] == pytest.approx([r.loss for r in calm], abs=1e-4)
    refused = site.hpcjobs("resume", "r", "--nodes", "1", "--ntasks-per-node", "5", "--yes", code=2)
    assert "does not divide by 5 ranks" in refused


def test_models_on_the_way_are_evaluated_while_the_training_goes_on(site: Site) -> None:
    """Rank 0 has each eval queued as soon as its model is there; the last is the merge job's."""
    after = site.folder / "after.yaml"
    after.write_text(dump_yaml(EVAL))
    config = config_file(site, 500, then_eval=str(after), then_eval_every=200)
    submit(site, "m", config, shape=("--nodes", "1", "--ntasks-per-node", "2"))
    paths = site.paths("m")
    site.until("the first eval", lambda: (paths.eval_of(200) / "submission.json").exists(), 180)
    assert site.status("m")["state"] == "running", "it was not queued on the way"
    until_complete(site, "m")
    site.until("all evals", lambda: [e["state"] for e in site.status("m")["evals"]] == ["complete"] * 3, 180)
    evals = site.status("m")["evals"]
    assert [one["step"] for one in evals] == [200, 400, None]
    for one, model in zip(evals, (paths.step_model(200), paths.step_model(400), paths.model), strict=True):
        metrics = json.loads((Path(one["run"]) / "metrics.json").read_text())
        assert metrics["provenance"]["model"]["name"] == one["model"] == str(model)
    hashes = {sha256_of(Path(one["model"]) / "model.safetensors") for one in evals}
    assert len(hashes) == 3


def test_a_job_out_of_time_goes_on_in_the_next(undisturbed: Site, site: Site) -> None:
    """A minute is too short: each job makes a checkpoint in time, and no step is run twice."""
    slow = ("--time", "1", "--set", "model.name=tiny")
    submit(site, "t", config_file(site, 3000, checkpoint_every=100000), *slow)
    site.until("a second job", lambda: len(launches(site, "t")) >= 2, 240)
    site.until("its steps", lambda: len({p.stem.rpartition("-")[0] for p in site.paths("t").journals()}) >= 2, 240)
    site.hpcjobs("cancel", "t")
    first = launches(site, "t")[0]["jobs"]["work"]
    assert site.cluster.sacct(first)[0]["State"] == "COMPLETED", site.hpcjobs("logs", "t")
    drained = [v for v in read_heartbeats(site.paths("t").heartbeats) if v.attempt.startswith(f"{first}.")]
    assert {v.state for v in drained} == {"drained"}
    assert any((v.ended or "").endswith("the time limit") for v in drained)


def launches(site: Site, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(site.paths(name).submission.read_text())["launches"]
    return found
