"""The sbatch scripts of a run, as values that one can print, test and queue."""

from __future__ import annotations

import shlex
import sys
import uuid
from collections.abc import Callable
from typing import Any

import submitit
from submitit.core import utils
from submitit.core.core import Job

from hpcjobs import slurm
from hpcjobs.config import ClusterConfig, Config
from hpcjobs.paths import RunPaths
from hpcjobs.shape import Shape

_MERGE_MINUTES = 60
# What of cluster.sbatch is also the merge job's: not its resources, holds and begin times.
_FOR_MERGE = {"comment", "mail-type", "mail-user", "wckey"}
_WARNING_SECONDS = 90
# Slurm may send the warning a minute early: to a short job it would come before Python has a handler for USR2,
# and end it. CONT ends nobody.
_SHORT_MINUTES = 5


class Executor(submitit.SlurmExecutor):  # type: ignore[misc]
    """submitit's executor, with its own sbatch call: a clean environment, and the id by --parsable.

    It needs no Slurm to print its script.
    """

    @classmethod
    def affinity(cls) -> int:
        return 2

    @property
    def script(self) -> str:
        text: str = self._make_submission_file_text(self._submitit_command_str, "")
        return text

    def _submit_command(self, command: str) -> Job[Any]:
        folder = utils.JobPaths.get_first_id_independent_folder(self.folder)
        draft = folder / f".submission-{uuid.uuid4().hex}.sh"
        draft.write_text(self._make_submission_file_text(command, ""))
        try:
            job_id = slurm.submit(draft)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        job: Job[Any] = self.job_class(folder=self.folder, job_id=job_id, tasks=list(range(self._num_tasks())))
        job.paths.move_temporary_file(draft, "submission_file")
        return job

    def queue(self, entry: Callable[[str], Any], paths: RunPaths) -> str:
        """Queue `entry(run folder)` for every rank; the job id. Only a function's name and a path are pickled."""
        try:
            return str(self.submit(entry, str(paths.root)).job_id)
        except BaseException:
            for pickle in self.folder.glob("*.pkl"):
                if len(pickle.stem) == 32:  # submitit's draft of a job that was refused
                    pickle.unlink(missing_ok=True)
            raise


def work_executor(config: Config, shape: Shape, paths: RunPaths) -> Executor:
    """The job of the ranks. With --no-kill it goes on with the nodes it has left; a dead rank ends nobody else."""
    cluster = config.cluster
    srun = ["--no-kill", "--kill-on-bad-exit=0", "--wait=0", "--open-mode=append"]
    if cluster.cpus_per_task:
        srun.append(f"--cpus-per-task={cluster.cpus_per_task}")  # not inherited from sbatch since Slurm 22.05
    if cluster.container:
        srun.append(f"--container-image={cluster.container}")
    more: dict[str, Any] = {"no-kill": True, "requeue" if cluster.requeue else "no-requeue": True}
    if cluster.exclusive:
        more["exclusive"] = True
    if cluster.minutes < _SHORT_MINUTES:
        more["signal"] = "CONT@1"
    executor = _executor(paths)
    executor.update_parameters(
        **_common(cluster, paths), job_name=paths.root.name, time=cluster.minutes, nodes=shape.nodes,
        ntasks_per_node=shape.ranks_per_node, cpus_per_task=cluster.cpus_per_task,
        gpus_per_node=shape.gpus_per_node or None, signal_delay_s=_WARNING_SECONDS,
        srun_args=[*srun, *cluster.srun_args],
        additional_parameters=_additional(cluster) | more,
    )  # fmt: skip
    return executor


def merge_executor(config: Config, after: str, paths: RunPaths) -> Executor:
    """The post-job step: it starts whatever became of the ranks (afterany), and judges by the journals."""
    executor = _executor(paths)
    executor.update_parameters(
        **_common(config.cluster, paths), job_name=f"{paths.root.name}.merge", time=_MERGE_MINUTES, nodes=1,
        ntasks_per_node=1, dependency=f"afterany:{after}", use_srun=False,
        additional_parameters=_additional(config.cluster, merge=True) | {"requeue": True},
    )  # fmt: skip
    return executor


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


def setup_lines(cluster: ClusterConfig) -> list[str]:
    """Shell lines before srun: modules, environment, and the user's own."""
    modules = [f"module load {module}" for module in cluster.modules]
    exports = [f"export {name}={shlex.quote(value)}" for name, value in cluster.env.items()]
    return [*modules, *exports, *cluster.setup]


def scripts(config: Config, shape: Shape, paths: RunPaths, with_merge: bool) -> dict[str, str]:
    """The exact scripts, by what they are for; the merge job's dependency is known only once the work has its id."""
    texts = {"work": work_executor(config, shape, paths).script}
    if with_merge:
        texts["merge"] = merge_executor(config, "WORK_JOB_ID", paths).script
    return texts
