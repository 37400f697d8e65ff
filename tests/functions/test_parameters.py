"""submitit's parameters become keys of the config, and those the script that Slurm gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import hpcjobs
from hpcjobs.config.layers import dotted_layer
from hpcjobs.config.problems import validate
from hpcjobs.config.shape import shape_of
from hpcjobs.errors import ConfigError, UsageError
from hpcjobs.functions.parameters import cluster_values, gpus_of, local_workers, minutes_of, tasks_of, worker_minutes
from hpcjobs.launch.sbatch import work_executor
from hpcjobs.run_folder.paths import RunPaths


def lines_of(folder: Path, **parameters: Any) -> list[str]:
    """The script of a job with these parameters of submitit's SlurmExecutor."""
    values = cluster_values("slurm", parameters)
    config = validate(dotted_layer(values, "here"))
    script = work_executor(config, shape_of(config.cluster, 1, script=True), RunPaths(folder / "run"), True).script
    return script.splitlines()


def test_a_script_has_what_was_asked_for(tmp_path: Path) -> None:
    lines = lines_of(
        tmp_path, partition="dev", account="me", qos="high", constraint="a100", nodes=2, ntasks_per_node=4,
        cpus_per_task=3, mem="4GB", exclusive=True, comment="a b", exclude="n1", mail_type="END", gres="tmp:10G",
        wckey="mine",
        setup=["module load x"], teardown=["echo done", "it's"], srun_args=["--cpu-bind=none"],
        additional_parameters={"mem_per_cpu": None, "hint": "nomultithread", "reservation": "r"},
    )  # fmt: skip
    for line in (
        "#SBATCH --partition=dev", "#SBATCH --account=me", "#SBATCH --qos=high", "#SBATCH --constraint=a100",
        "#SBATCH --nodes=2", "#SBATCH --ntasks-per-node=4", "#SBATCH --cpus-per-task=3", "#SBATCH --mem=4GB",
        "#SBATCH --exclusive", "#SBATCH --comment='a b'", "#SBATCH --exclude=n1", "#SBATCH --mail-type=END",
        "#SBATCH --gres=tmp:10G", "#SBATCH --wckey=mine", "#SBATCH --hint=nomultithread", "#SBATCH --reservation=r",
        "module load x",
    ):  # fmt: skip
        assert line in lines
    assert any("--cpu-bind=none" in line for line in lines if line.startswith("srun"))
    assert any("trap 'echo done" in line for line in lines)


@pytest.mark.parametrize(
    ("parameters", "gpus"),
    [
        ({}, 0),
        ({"gpus_per_node": 2}, 2),
        ({"num_gpus": 3}, 3),
        ({"gpus_per_task": 2, "ntasks_per_node": 4}, 8),
        ({"gres": "gpu:4"}, 4),
        ({"gres": "tmp:4"}, 0),
    ],
)
def test_gpus_are_those_of_a_node(parameters: dict[str, Any], gpus: int) -> None:
    assert gpus_of(parameters) == gpus
    assert cluster_values("slurm", parameters).get("cluster.gpus_per_node", 0) == gpus


@pytest.mark.parametrize(
    ("cluster", "parameters", "words"),
    [
        ("slurm", {"dependency": "afterok:1"}, "slurm_dependency is not for hpcjobs.Executor"),
        ("slurm", {"use_srun": False}, "slurm_use_srun is not for"),
        ("slurm", {"cpus_per_gpu": 2}, "set cpus_per_task"),
        ("local", {"setup": ["x"]}, "local_setup"),
    ],
)
def test_what_hpcjobs_has_not_is_refused(cluster: str, parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        cluster_values(cluster, parameters)


def test_other_options_are_checked_as_those_of_a_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="signal"):
        lines_of(tmp_path, additional_parameters={"signal": "USR1@10"})


def test_limits_and_workers() -> None:
    assert (minutes_of("slurm", {}), minutes_of("slurm", {"time": 60}), minutes_of("local", {})) == (5, 60, 2)
    assert (tasks_of({}), tasks_of({"nodes": 2, "ntasks_per_node": 3}), tasks_of({"tasks_per_node": 2})) == (1, 6, 2)
    assert worker_minutes(5, 8, 8, lambda: 1) == 5
    assert worker_minutes(5, 9, 8, lambda: 60) == 10
    assert worker_minutes(5, 10_000, 8, lambda: 120) == 120
    assert worker_minutes(240, 10_000, 8, lambda: 120) == 240
    assert worker_minutes(0.5, 1, 1, lambda: None) == 1
    assert worker_minutes(600, 10_000, 8, lambda: None) == 7 * 24 * 60
    assert local_workers({}, 3, 8) == 3
    assert local_workers({}, 100, 8) == 8
    assert local_workers({"cpus_per_task": 10_000}, 100, None) == 1


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("cpus_per_task", 0, "cpus_per_task=0: a whole number, 1 or more"),
        ("nodes", True, "nodes=True: a whole number, 1 or more"),
        ("slurm_ntasks_per_node", -1, "slurm_ntasks_per_node=-1: a whole number, 1 or more"),
        ("gpus_per_node", -1, "gpus_per_node=-1: a whole number, 0 or more"),
        ("timeout_min", 0, "timeout_min=0: a number above 0"),
        ("local_array_parallelism", True, "local_array_parallelism=True: a whole number, 1 or more"),
    ],
)
def test_numbers_that_cannot_be_are_refused(tmp_path: Path, name: str, value: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        hpcjobs.Executor(tmp_path, "slurm" if "slurm" in name else "local", **{name: value})
    hpcjobs.Executor(tmp_path, "local", gpus_per_node=0, local_timeout_min=0.2, mem_gb=0.5, cpus_per_task=None)


def test_gpus_of_this_machine_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    assert local_workers({"gpus_per_node": 2}, 100, None) == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert local_workers({"gpus_per_node": 2}, 100, None) == 1
