"""Launch a run: queue the ranks and the merge job after them, or start them on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import secrets
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpcjobs.config import Config
from hpcjobs.config.shape import Shape
from hpcjobs.errors import DiskFullError, HpcJobsError, LaunchError, UsageError
from hpcjobs.launch import slurm
from hpcjobs.launch.entry import MERGE, RANK, SUPERVISOR, enter
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity, process_start
from hpcjobs.run_folder.submission import Launch, forget_launch, read_launches, record_launch, together

if TYPE_CHECKING:
    from hpcjobs.launch.sbatch import Executor

# How long an automatic start retries if slurmctld does not answer (seconds): no user is there to retry.
_PATIENCE = 1800.0
# Seconds that `cancel` gives local ranks to finish samples or give chunks back; it kills them after 20.
_LOCAL_KILL_WAIT = "7"


def executor_of(config: Config) -> str:
    """slurm, local or debug; `auto` is slurm if its commands exist. Raises a UsageError if Slurm is required but
    missing.
    """
    wanted = config.cluster.executor
    if wanted == "auto":
        return "slurm" if slurm.available() else "local"
    if wanted == "slurm" and not slurm.available():
        raise UsageError(
            "--executor slurm: no sbatch and squeue on PATH, this machine has no Slurm; use --executor local, or log "
            "in to the cluster"
        )
    return wanted


@dataclass(frozen=True)
class Start:
    """Options of a launch. `merge`: queue a merge job after the ranks. `automatic`: an automatic resume. `joined`: the
    ranks join the current round.
    """

    merge: bool = True
    automatic: bool = False
    joined: bool = False


def launch(paths: RunPaths, config: Config, shape: Shape, start: Start) -> Launch:
    """Start a planned run and record it in submission.json. Raises a LaunchError if Slurm refuses it.

    The debug executor's launch is only recorded: `commands.submit.start_run` runs its rank.
    """
    launches, executor, rounds = read_launches(paths), executor_of(config), paths.rounds()
    record = Launch(
        number=launches[-1].number + 1 if launches else 0,
        executor=executor,
        jobs={},
        shape=str(shape),
        ranks=shape.ranks,
        automatic=start.automatic,
        round=rounds[-1] if rounds else 0,
        joined=start.joined,
    )
    try:
        return {"slurm": _slurm, "local": _local, "debug": _debug}[executor](paths, config, shape, start, record)
    except LaunchError:
        with contextlib.suppress(DiskFullError):
            forget_launch(paths, record.number)
        raise


def _slurm(paths: RunPaths, config: Config, shape: Shape, start: Start, record: Launch) -> Launch:
    from hpcjobs.launch.sbatch import merge_executor

    record = dataclasses.replace(record, commands=("sbatch --parsable SCRIPT",))
    queue = functools.partial(_queue, paths, _PATIENCE if start.automatic else 0.0)
    try:
        for kind, work in _pieces(config, shape, paths, start.joined):
            try:
                record = queue(record, kind, work, RANK, str(paths.root))
            except LaunchError as error:
                if not record.jobs:
                    raise
                note = f"{kind}: {error}; the workers that were taken do all the work"
                record = dataclasses.replace(record, notes=(note,))
                break
        if start.merge:
            older = [one for one in together([*read_launches(paths)]) if one.number != record.number]
            after = [job for one in (older if start.joined else []) for job in one.work_jobs] + record.work_jobs
            merge = merge_executor(config, after, paths)
            record = queue(record, "merge", merge, MERGE, str(paths.root), record.number)
            if start.joined:
                slurm.cancel(one.jobs["merge"] for one in older if "merge" in one.jobs)
    except BaseException as error:
        _take_back(record.jobs.values(), paths, error)
        if isinstance(error, DiskFullError):
            raise LaunchError(str(error)) from error
        raise
    return record


def _queue(
    paths: RunPaths, patience: float, record: Launch, kind: str, executor: Executor, entry: str, *args: str | int
) -> Launch:
    """Queue one job; returns the record with its id.

    Its key is recorded before sbatch is called, so an interrupted submission can be found.
    """
    executor.name, key = f"{kind}-{record.number}", secrets.token_hex(8)
    scripts = {**record.scripts, kind: executor.script}
    record = dataclasses.replace(record, keys={**record.keys, kind: key}, scripts=scripts)
    record_launch(paths, record)
    record = record.with_job(kind, executor.queue(key, enter, entry, *args, patience=patience))
    try:
        record_launch(paths, record)
    except BaseException as error:  # the caller does not know of it yet
        _take_back([record.jobs[kind]], paths, error)
        raise
    return record


def _pieces(config: Config, shape: Shape, paths: RunPaths, joined: bool) -> Iterator[tuple[str, Executor]]:
    """The work as one job, or as job arrays of the size that Slurm allows, each with its name."""
    from hpcjobs.launch.sbatch import work_executor

    name, left = "join" if joined else "work", shape.workers
    if left == 1:
        yield name, work_executor(config, shape, paths)
        return
    most, number = slurm.most_array_tasks(), 1
    while left:
        size = min(left, most)
        yield f"{name}{number if number > 1 else ''}", work_executor(config, shape, paths).as_array(size)
        left, number = left - size, number + 1


def _take_back(job_ids: Iterable[str], paths: RunPaths, why: BaseException) -> None:
    """Cancel a partial submission. If that fails the run folder must stay: a live job needs it."""
    try:
        slurm.cancel(job_ids)
    except LaunchError as error:
        raise HpcJobsError(f"{why}; and the job is still queued: {error}; next: hpcjobs cancel {paths.root}") from why


def _local(paths: RunPaths, config: Config, shape: Shape, start: Start, record: Launch) -> Launch:
    """Start a supervisor in its own session, so that it outlives this terminal."""
    command = [sys.executable, "-m", SUPERVISOR, str(paths.root), str(record.number)]
    command += [str(shape.ranks), str(shape.gpus_per_node * shape.nodes)]
    record = dataclasses.replace(record, commands=(" ".join(command),))
    try:
        record_launch(paths, record)
    except DiskFullError as error:
        raise LaunchError(str(error)) from error
    env = slurm.clean_environment() | {"HPCJOBS_KILL_WAIT": _LOCAL_KILL_WAIT} | config.cluster.env
    with (paths.logs / f"supervisor-{record.number}.log").open("ab") as output:
        process = subprocess.Popen(
            command, start_new_session=True, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env
        )
    identity = Identity(Identity.own().machine, process.pid, process_start(process.pid) or "0")
    record = dataclasses.replace(record, supervisor=identity.values()).with_job("supervisor", str(process.pid))
    try:
        record_launch(paths, record)
    except BaseException:  # nobody would know of it
        process.kill()
        raise
    return record


def _debug(paths: RunPaths, config: Config, shape: Shape, start: Start, record: Launch) -> Launch:
    """Record a launch whose single rank the caller runs in this process, where breakpoints work."""
    if shape.ranks > 1:
        raise UsageError(f"--executor debug runs one rank in this process, not {shape.ranks}: use --executor local")
    record = dataclasses.replace(record, commands=(f"python -m hpcjobs.worker {paths.root}",))
    record_launch(paths, record)
    return record
