"""The parameters of submitit's executors as keys of the config."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hpcjobs.config.checks import slurm_minutes
from hpcjobs.config.sbatch_options import OWN
from hpcjobs.errors import UsageError

# submitit's own defaults (minutes, seconds, elements of an array at once).
SLURM_MINUTES, LOCAL_MINUTES, SLURM_WARNING, LOCAL_WARNING, PARALLELISM = 5, 2, 90, 30, 256
_SAME = ("partition", "qos", "account", "constraint", "nodes", "ntasks_per_node", "cpus_per_task", "mem")
_SBATCH = ("comment", "exclude", "nodelist", "mail_type", "mail_user", "mem_per_gpu", "mem_per_cpu", "wckey")
_NOT = {
    "dependency": "hpcjobs queues jobs behind these, and starts them again: wait for the first job in Python",
    "cpus_per_gpu": "set cpus_per_task",
    "use_srun": "hpcjobs starts what it runs by srun",
}
_NUMBERS = {
    "a whole number, 1 or more": {"nodes", "tasks_per_node", "ntasks_per_node", "cpus_per_task", "array_parallelism"},
    "a whole number, 0 or more": {"gpus_per_node", "gpus_per_task", "num_gpus"},
    "a number above 0": {"timeout_min", "time", "mem_gb"},
}
_TEARDOWN = 'case "$SLURM_JOB_NAME" in *.merge) ;; *) trap {} EXIT ;; esac'


def check_number(name: str, value: object) -> None:
    """Raise a ValueError for a number that this parameter, by the user's name for it, cannot be."""
    own = re.sub(r"^(slurm|local|debug)_", "", name)
    what = next((what for what, names in _NUMBERS.items() if own in names), None)
    if what is None or not isinstance(value, int | float):
        return
    number = not isinstance(value, bool)
    good = {
        "a whole number, 1 or more": number and isinstance(value, int) and value >= 1,
        "a whole number, 0 or more": number and isinstance(value, int) and value >= 0,
        "a number above 0": number and 0 < value < math.inf,
    }
    if not good[what]:
        raise ValueError(f"{name}={value!r}: {what}")


def minutes_of(cluster: str, parameters: Mapping[str, Any]) -> float:
    """The time limit of a call."""
    if cluster == "slurm":
        return slurm_minutes(parameters.get("time", SLURM_MINUTES))
    return float(parameters.get("timeout_min", LOCAL_MINUTES))


def warning_of(cluster: str, parameters: Mapping[str, Any]) -> float:
    """How long before its limit a call is warned (seconds)."""
    return float(parameters.get("signal_delay_s", SLURM_WARNING if cluster == "slurm" else LOCAL_WARNING))


def tasks_of(parameters: Mapping[str, Any]) -> int:
    """How many tasks a call has."""
    per_node = parameters.get("ntasks_per_node") or parameters.get("tasks_per_node") or 1
    return int(parameters.get("nodes") or 1) * int(per_node)


def gpus_of(parameters: Mapping[str, Any]) -> int:
    """The GPUs that a node has for a call. Raises a UsageError."""
    own = parameters.get("gpus_per_node") or parameters.get("num_gpus")
    if each := parameters.get("gpus_per_task"):
        own = int(each) * int(parameters.get("ntasks_per_node") or 1)
    if not own and (named := re.fullmatch(r"gpu:(\d+)", str(parameters.get("gres", "")))):
        own = named[1]
    return int(own or 0)


def cluster_values(cluster: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the config, as dotted names, that hold for a call. Raises a UsageError for what hpcjobs has not."""
    if cluster != "slurm":
        setup = [str(line) for line in parameters.get("setup") or ()]
        if setup:
            raise UsageError("local_setup: hpcjobs runs local calls without a shell: set it up before submitting")
        cpus = parameters.get("cpus_per_task")
        return {"cluster.cpus_per_task": cpus} if cpus else {}
    for name, instead in _NOT.items():
        if parameters.get(name) not in (None, True):
            raise UsageError(f"slurm_{name} is not for hpcjobs.Executor: {instead}")
    values = {f"cluster.{name}": parameters[name] for name in _SAME if parameters.get(name) is not None}
    if gpus := gpus_of(parameters):
        values["cluster.gpus_per_node"] = gpus
    if gres := parameters.get("gres"):
        values |= {"cluster.gpu_flag": "gres"} if gpus else {"cluster.sbatch.gres": gres}
    if exclusive := parameters.get("exclusive"):
        values |= {"cluster.exclusive": True} if exclusive is True else _additional({"exclusive": exclusive})
    values |= {
        f"cluster.sbatch.{name.replace('_', '-')}": parameters[name]
        for name in _SBATCH if parameters.get(name) is not None
    }  # fmt: skip
    values |= _additional(parameters.get("additional_parameters") or {})
    setup = [str(line) for line in parameters.get("setup") or ()]
    if teardown := parameters.get("teardown"):
        setup.append(_TEARDOWN.format(shlex.quote("\n".join(teardown))))
    if setup:
        values["cluster.setup"] = setup
    if words := parameters.get("srun_args"):
        values["cluster.srun_args"] = list(words)
    return values


def _additional(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of sbatch: those that the config has a key for, and others."""
    values = {}
    for name, value in given.items():
        if value is None:
            continue
        key = OWN.get(name.replace("_", "-"), "")
        values[key if key.startswith("cluster.") and " " not in key else f"cluster.sbatch.{name}"] = value
    return values


def local_workers(parameters: Mapping[str, Any], calls: int, parallelism: int | None) -> int:
    """How many calls run at once on this machine."""
    gpus = gpus_of(parameters)
    room = len(os.sched_getaffinity(0)) // int(parameters.get("cpus_per_task") or 1)
    if gpus:
        room = max(1, _gpus_here() // gpus)
    return max(1, min(calls, parallelism or room))


def _gpus_here() -> int:
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if seen is not None:
        return len([one for one in seen.split(",") if one])
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def worker_minutes(minutes: float, calls: int, workers: int, most: Callable[[], int | None]) -> int:
    """The time limit of a worker: all of its calls at their own limit, and not more than Slurm, or a week, allows."""
    each = max(1, -(-int(minutes * 60) // 60))
    rounds = -(-calls // workers)
    if rounds == 1:
        return each
    return max(each, min(each * rounds, most() or 7 * 24 * 60, 7 * 24 * 60))

