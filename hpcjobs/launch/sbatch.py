"""The sbatch scripts of a run, as values that can be printed, tested and queued."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import submitit
from submitit.core import utils

from hpcjobs.config import ClusterConfig, Config
from hpcjobs.config.shape import Shape
from hpcjobs.distributed.drain import WARNING_SECONDS
from hpcjobs.errors import LaunchError
from hpcjobs.launch import slurm
from hpcjobs.launch.entry import RESTARTS
from hpcjobs.launch.partitions import most_minutes
from hpcjobs.run_folder.files import private_umask
from hpcjobs.run_folder.paths import RunPaths

_MERGE_MINUTES = 60
# Options of cluster.sbatch that the merge job gets too: not resources, holds and begin times.
_FOR_MERGE = {"comment", "mail-type", "mail-user", "wckey"}
# Slurm may send the warning a minute early. In a short job USR2 could arrive before Python has a handler for it, and
# kill the job; CONT does no harm.
_SHORT_MINUTES = 5
# When this job ends, and how long Slurm waits between SIGTERM and SIGKILL: queried once per job, for all its ranks.
_ENDS_AT = (
    'export HPCJOBS_END_TIME="${SLURM_JOB_END_TIME:-$(date -d "$(SLURM_TIME_FORMAT=standard timeout 30 squeue '
    '--noheader --format=%e --job="$SLURM_JOB_ID")" +%s 2>/dev/null)}"'
)
_KILL_WAIT = (
    'export HPCJOBS_KILL_WAIT="$(timeout 30 scontrol show config 2>/dev/null '
    "| sed -n 's/^KillWait *= *\\([0-9]*\\).*/\\1/p')\""
)


class Executor(submitit.SlurmExecutor):  # type: ignore[misc]
    """submitit's executor with its own sbatch call: a clean environment, and the job id from --parsable or by the job's
    key.

    Printing the script needs no Slurm.
    """

    @classmethod
    def affinity(cls) -> int:
        """submitit's preference among executors: above 1, its default for Slurm where Slurm exists."""
        return 2

    name, array = "work-0", False
    # The words in front of srun: what starts it once for each attempt of a program, if there may be several.
    starter: tuple[str, ...] = ()
    # Whether Slurm is asked for a signal before the time limit; submitit asks always.
    warned = True

    @property
    def script(self) -> str:
        """The exact script. `name` distinguishes this job's pickle from those of the run's other jobs."""
        return self._make_submission_file_text(self._submitit_command_str, "")

    def as_array(self, workers: int) -> Executor:
        """Make this job an array of `workers` jobs."""
        self.array = True  # of one worker, too: Slurm and submitit name its tasks as those of any array
        more = self.parameters["additional_parameters"] | {"array": f"0-{workers - 1}"}
        self.update_parameters(additional_parameters=more)
        self.parameters["map_count"] = workers
        return self

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        """The script. The job itself copies the pickle to the name that submitit expects, so nothing has to run after
        sbatch.
        """
        setup = self.parameters.get("setup") or []
        self.parameters["setup"] = [*setup, f"cp {shlex.quote(str(self._pickle))} {self._submitted}"]
        try:
            text: str = super()._make_submission_file_text(command, uid)
        finally:
            self.parameters["setup"] = setup
        if self.starter:
            words = shlex.join([*self.starter, self.name.rpartition("-")[2]])
            text = re.sub(r"^(?=srun --unbuffered --output )", lambda _: f"{words} ", text, flags=re.MULTILINE)
        return text if self.warned else re.sub(r"^#SBATCH --signal=.*\n", "", text, flags=re.MULTILINE)

    @property
    def _pickle(self) -> Path:
        return Path(self.folder) / f"{self.name}.pkl"

    @property
    def _submitted(self) -> str:
        job = "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}" if self.array else "${SLURM_JOB_ID}"
        return f'{shlex.quote(str(self.folder))}/"{job}_submitted.pkl"'

    def queue(self, key: str, entry: Callable[..., object], *args: str | int, patience: float = 0.0) -> str:
        """Queue `entry(*args)` for every rank and return the job id. Only a function's name, a path and a number are
        pickled.

        `key` must be unused: the job is found by it if sbatch's reply is lost. `patience` is how long to retry when
        slurmctld does not answer (seconds).
        """
        draft = Path(self.folder) / f".submission-{key}.sh"
        delayed = utils.DelayedSubmission(entry, *args)
        delayed.set_timeout(self.parameters["time"], self.max_num_timeout)
        with private_umask(Path(self.folder)):
            delayed.dump(self._pickle)
            draft.write_text(self.script)
        try:
            job_id = slurm.submit(draft, key, patience)
        except LaunchError:
            self._pickle.unlink(missing_ok=True)
            draft.unlink(missing_ok=True)
            raise
        os.replace(draft, Path(self.folder) / f"{job_id}_submission.sh")
        return job_id


def work_executor(
    config: Config, shape: Shape, paths: RunPaths, program: bool = False, indexes: Sequence[int] = ()
) -> Executor:
    """The job of the ranks. With --no-kill it goes on with its remaining nodes, and a dead rank ends no other.

    Slurm warns ranks before the time limit; a `program` of the user's gets only the signals that its user asks for.
    `indexes` are those of the copies of an array of programs, in the order of the job array.
    """
    cluster = config.cluster
    srun = ["--no-kill", "--kill-on-bad-exit=0", "--wait=0", "--open-mode=append"]
    if cluster.cpus_per_task:
        srun.append(f"--cpus-per-task={cluster.cpus_per_task}")  # not inherited from sbatch since Slurm 22.05
    if cluster.container:
        srun.append(f"--container-image={cluster.container}")
    if {"export", "export-file"} & cluster.sbatch.keys():
        srun.append("--export=ALL")  # else srun, too, hands on only that, and the ranks have nothing of this script
    more: dict[str, Any] = {"no-kill": True, "requeue" if cluster.requeue else "no-requeue": True}
    if cluster.exclusive:
        more["exclusive"] = True
    if program and cluster.warn:
        more["signal"] = f"{cluster.warn.signal}@{cluster.warn.before}"
    elif cluster.minutes < _SHORT_MINUTES:
        more["signal"] = "CONT@1"
    executor = _executor(paths)
    executor.warned = not program or cluster.warn is not None
    if cluster.restarts:
        executor.starter = (sys.executable, "-m", RESTARTS, str(paths.root.absolute()))
    common = _common(cluster, paths)
    executor.update_parameters(
        **common | {"setup": [_ENDS_AT, _KILL_WAIT, *_index(cluster, indexes), *common["setup"]]},
        job_name=paths.root.name, time=cluster.minutes, nodes=_nodes(cluster, shape),
        ntasks_per_node=_ranks(cluster, shape), cpus_per_task=cluster.cpus_per_task,
        gpus_per_node=None if cluster.gpu_flag == "gres" else shape.gpus_per_node or None,
        signal_delay_s=WARNING_SECONDS,
        srun_args=[*srun, *cluster.srun_args],
        additional_parameters=_additional(cluster) | _gres(cluster, shape) | more,
    )  # fmt: skip
    return executor


def _index(cluster: ClusterConfig, indexes: Sequence[int]) -> list[str]:
    """The shell lines by which a job of an array of programs knows its copy."""
    if not indexes:
        return []
    return [
        f"indexes=({' '.join(map(str, indexes))})",
        f'export HPCJOBS_INDEX="${{indexes[${{SLURM_ARRAY_TASK_ID:-0}}]}}" HPCJOBS_ARRAY_SIZE={cluster.array}',
    ]


def _nodes(cluster: ClusterConfig, shape: Shape) -> int | str:
    """The nodes to ask for: with spares, from as many as are needed to as many as are wanted."""
    return f"{shape.nodes}-{shape.nodes + cluster.spares}" if cluster.spares else shape.nodes


def _ranks(cluster: ClusterConfig, shape: Shape) -> int | None:
    """The tasks of each node. To Slurm `--nodes=3-4 --ntasks-per-node=1` is three tasks, for which it takes three
    nodes; without the second it takes four if they are free, with a task on each.
    """
    return None if cluster.spares and shape.ranks_per_node == 1 else shape.ranks_per_node


def merge_executor(config: Config, after: Sequence[str], paths: RunPaths) -> Executor:
    """The merge job. It starts however the ranks ended (afterany), and decides from the journals.

    Where the partition allows less than an hour it asks for that, or it would wait for ever.
    """
    executor = _executor(paths)
    executor.update_parameters(
        **_common(config.cluster, paths), job_name=f"{paths.root.name}.merge", time=_merge_minutes(config.cluster),
        nodes=1, ntasks_per_node=1, dependency=":".join(["afterany", *after]), use_srun=False,
        additional_parameters=_additional(config.cluster, merge=True) | {"requeue": True},
    )  # fmt: skip
    return executor


def _merge_minutes(cluster: ClusterConfig) -> int:
    most = most_minutes(cluster.partition) if slurm.available() else None
    return min(_MERGE_MINUTES, most or _MERGE_MINUTES)


def _executor(paths: RunPaths) -> Executor:
    return Executor(folder=paths.logs, python=shlex.quote(sys.executable))


def _common(cluster: ClusterConfig, paths: RunPaths) -> dict[str, Any]:
    values = {
        "partition": cluster.partition, "account": cluster.account, "qos": cluster.qos,
        "setup": setup_lines(cluster), "stderr_to_stdout": True, "wckey": None,
    }  # fmt: skip
    return {name: value for name, value in values.items() if value is not None or name == "wckey"}


def _additional(cluster: ClusterConfig, merge: bool = False) -> dict[str, Any]:
    values: dict[str, Any] = {"reservation": cluster.reservation}
    if not merge:
        values |= {"constraint": cluster.constraint, "mem": cluster.mem}
    given = {key.replace("_", "-"): value for key, value in cluster.sbatch.items()}
    values |= {key: value for key, value in given.items() if not merge or key in _FOR_MERGE}
    return {key: value for key, value in values.items() if value is not None and value is not False}


def _gres(cluster: ClusterConfig, shape: Shape) -> dict[str, str]:
    """The option gres, where the site wants GPUs by it: beside other resources of the user's, such as local disks."""
    if cluster.gpu_flag != "gres" or not shape.gpus_per_node:
        return {}
    others = cluster.sbatch.get("gres")
    return {"gres": ",".join([f"gpu:{shape.gpus_per_node}", *([str(others)] if others else [])])}


def setup_lines(cluster: ClusterConfig) -> list[str]:
    """The shell lines before srun: modules, environment variables, and the user's own."""
    modules = [f"module load {module}" for module in cluster.modules]
    exports = [f"export {name}={shlex.quote(value)}" for name, value in cluster.env.items()]
    return [*modules, *exports, *cluster.setup]


def scripts(
    config: Config, shape: Shape, paths: RunPaths, with_merge: bool, program: bool = False
) -> dict[str, str]:
    """The exact scripts by job: work and merge. The merge job's dependency is a placeholder until the work job has an
    id.
    """
    copies = range(shape.workers) if program and config.cluster.array and config.sweep is None else ()
    work = work_executor(config, shape, paths, program, copies)
    texts = {"work": (work.as_array(shape.workers) if shape.workers > 1 else work).script}
    if with_merge:
        merge = merge_executor(config, ["WORK_JOB_ID"], paths)
        merge.name = "merge-0"
        texts["merge"] = merge.script
    return texts
