"""Ask Slurm, before anything is written, whether jobs of a shape can ever start: `sbatch --test-only`.

With EnforcePartLimits=NO, Slurm's default, a job that asks for more nodes than its partition has, or for more time than
it allows, is queued all the same and waits for ever.
"""

from __future__ import annotations

import re
import tempfile

from hpcjobs.config import ClusterConfig, Config
from hpcjobs.config.shape import Shape
from hpcjobs.errors import LaunchError, UsageError
from hpcjobs.launch.partitions import most_minutes
from hpcjobs.launch.programs import run, words
from hpcjobs.run_folder.paths import RunPaths

# What Slurm says (slurm_errno(3)) where waiting does not help, and the keys that have to do with it. Other errors may
# pass, such as nodes that are down or a limit of jobs a user: those are left to sbatch.
_NEVER = {
    "node configuration is not available": "nodes, gpus, ntasks_per_node, cpus_per_task, mem, constraint",
    "time limit is invalid": "time",
    "Node count specification invalid": "nodes",
    "More processors requested than permitted": "nodes, ntasks_per_node, cpus_per_task",
    "Memory required by task is not available": "mem",
    "nvalid partition": "partition",
    "nvalid account": "account, partition",
    "nvalid qos": "qos",
    "nvalid feature": "constraint",
    "nvalid generic resource": "gpus, gpu_flag",
    "eservation is invalid": "reservation",
}
# How long sbatch may take to find a place in the queue (seconds).
_SECONDS = 20.0


def check_startable(config: Config, shape: Shape, paths: RunPaths, program: bool = False) -> None:
    """Raise a UsageError, with Slurm's words and the keys to change, if these ranks can never start.

    Where Slurm does not answer in time, or knows no --test-only, nothing is said.
    """
    from hpcjobs.launch.sbatch import work_executor

    executor = work_executor(config, shape, paths, program)
    script = (executor.as_array(shape.workers) if shape.workers > 1 else executor).script
    with tempfile.NamedTemporaryFile("w", suffix=".sh", prefix="hpcjobs-") as file:
        file.write(script)
        file.flush()
        try:
            done = run(["sbatch", "--test-only", file.name], _SECONDS)
        except LaunchError:
            return
    if not done.returncode:
        _check_time(config.cluster)
    if done.returncode and (keys := _keys(done.stderr)):
        said = words(re.sub(r"^((sbatch|allocation failure|error): *)+", "", done.stderr, flags=re.MULTILINE))
        change = ", ".join(f"cluster.{key}" for key in keys.split(", "))
        raise UsageError(
            f"Slurm can never start {shape}: {said}; change {change}, or see what there is: sinfo --summarize; "
            "scontrol show partition"
        )


def _check_time(cluster: ClusterConfig) -> None:
    """What --test-only does not say: a job over its partition's limit waits for ever. A QOS may have another limit."""
    most = None if cluster.qos else most_minutes(cluster.partition)
    if most is not None and cluster.minutes > most:
        where = f"partition {cluster.partition}" if cluster.partition else "the default partition"
        raise UsageError(
            f"Slurm can never start a job of {cluster.minutes} min in {where}, which allows {most} min; change "
            "cluster.time (--time) or cluster.partition; see what there is: scontrol show partition"
        )


def _keys(said: str) -> str | None:
    return next((keys for text, keys in _NEVER.items() if text.lower() in said.lower()), None)
