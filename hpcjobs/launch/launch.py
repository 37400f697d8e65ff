"""Launch a run: queue the ranks and the merge job after them, or start them on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from hpcjobs.config import Config
from hpcjobs.config.shape import Shape
from hpcjobs.errors import DiskFullError, HpcJobsError, LaunchError, UsageError
from hpcjobs.launch import slurm
from hpcjobs.launch.claim import OvertakenError, Start, check_wanted, withdraw
from hpcjobs.launch.entry import MERGE, RANK, SUPERVISOR, enter
from hpcjobs.launch.jobs import LAUNCH_KEY, known_launches
from hpcjobs.run_folder.files import open_file
from hpcjobs.run_folder.job_kinds import kind_of
from hpcjobs.run_folder.launch_files import LaunchFiles
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity, process_start
from hpcjobs.run_folder.submission import Launch, together, write_submission

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


def launch(paths: RunPaths, config: Config, shape: Shape, start: Start, record: Launch) -> Launch:
    """Queue or start the launch that was claimed (`claim.py`). Raises a LaunchError if Slurm refuses it.

    Each step is recorded before it is done, and again with its outcome. The rank of a debug launch is run by
    `commands.submit.start_run`.
    """
    try:
        done = {"slurm": _slurm, "local": _local, "debug": _debug}[record.executor](paths, config, shape, start, record)
    except (LaunchError, OvertakenError) as error:
        if isinstance(error, LaunchError) or not LaunchFiles(paths).list()[record.number].jobs:
            with contextlib.suppress(DiskFullError):
                withdraw(paths, record.number, str(error))
        raise
    LaunchFiles(paths).mark(record.number, "launched")
    write_submission(paths)
    return done


def _slurm(paths: RunPaths, config: Config, shape: Shape, start: Start, record: Launch) -> Launch:
    queue = functools.partial(_queue, paths, _PATIENCE if start.automatic else 0.0)
    try:
        for kind, work in _pieces(config, shape, paths, start):
            try:
                record = queue(record, kind, work, RANK, str(paths.root), f"{record.number}.{kind}")
            except LaunchError as error:
                if not record.jobs:
                    raise
                note = f"{error}; the workers that were taken do all the work"
                LaunchFiles(paths).note_refused(record.number, kind, note)
                record = dataclasses.replace(record, notes=(f"{kind}: {note}",))
                break
        if start.merge:
            record = _queue_merge(paths, config, start, record, queue)
    except BaseException as error:
        _take_back(record.jobs.values(), paths, error)
        if isinstance(error, DiskFullError):
            raise LaunchError(str(error)) from error
        raise
    return record


def _queue_merge(
    paths: RunPaths, config: Config, start: Start, record: Launch, queue: Callable[..., Launch]
) -> Launch:
    """Queue the merge after these ranks, and those that they have joined.

    It takes the place of the merges of those whose jobs are all known. A launch that another command is queueing at the
    same moment keeps its own (`commands.finish`).
    """
    from hpcjobs.launch.sbatch import merge_executor

    older = [one for one in together(known_launches(paths)) if one.number != record.number] if start.joined else []
    older = [one for one in older if not one.starting and not one.unseen]
    after = [job for one in older for job in one.work_jobs] + record.work_jobs
    merge = merge_executor(config, after, paths)
    record = queue(record, "merge", merge, MERGE, str(paths.root), record.number, "merge")
    slurm.cancel(one.jobs["merge"] for one in older if "merge" in one.jobs)
    return record


def _queue(
    paths: RunPaths, patience: float, record: Launch, kind: str, executor: Executor, entry: str, *args: str | int
) -> Launch:
    """Queue one job; returns the record with its id.

    Its key is recorded before sbatch is called, so an interrupted submission can be found.
    """
    files, number = LaunchFiles(paths), record.number
    executor.name, key = f"{kind}-{number}", secrets.token_hex(8)
    files.note_key(number, kind, key, executor.script)
    write_submission(paths)
    check_wanted(paths, number)
    record = dataclasses.replace(record, keys={**record.keys, kind: key})
    record = record.with_job(kind, executor.queue(key, enter, entry, *args, patience=patience))
    try:
        files.note_job(number, kind, record.jobs[kind])
        write_submission(paths)
        check_wanted(paths, number)  # `cancel` may have looked before the job was there
    except BaseException as error:  # the caller does not know of it yet
        _take_back([record.jobs[kind]], paths, error)
        raise
    return record


def _pieces(config: Config, shape: Shape, paths: RunPaths, start: Start) -> Iterator[tuple[str, Executor]]:
    """The work as one job, or as job arrays of the size that Slurm allows, each with its name."""
    from hpcjobs.launch.sbatch import work_executor

    program = kind_of(paths).program
    name, left, indexes = "join" if start.joined else "work", shape.workers, start.indexes
    if left == 1:
        yield name, work_executor(config, shape, paths, program, indexes)
        return
    most, number = slurm.most_array_tasks(), 1
    while left:
        size = min(left, most)
        work = work_executor(config, shape, paths, program, indexes[:size])
        yield f"{name}{number if number > 1 else ''}", work.as_array(size)
        left, number, indexes = left - size, number + 1, indexes[size:]


def _take_back(job_ids: Iterable[str], paths: RunPaths, why: BaseException) -> None:
    """Cancel a partial submission. If that fails the run folder must stay: a live job needs it."""
    try:
        slurm.cancel(job_ids)
    except LaunchError as error:
        raise HpcJobsError(f"{why}; and the job is still queued: {error}; next: hpcjobs cancel {paths.root}") from why


def _local(paths: RunPaths, config: Config, shape: Shape, start: Start, record: Launch) -> Launch:
    """Start a supervisor in its own session, so that it outlives this terminal.

    It starts nothing before it is told to, when it is recorded: if this process is killed in between, it ends.
    """
    env = slurm.clean_environment() | {"HPCJOBS_KILL_WAIT": _LOCAL_KILL_WAIT} | config.cluster.env
    env[LAUNCH_KEY] = record.key
    log = open_file(paths.logs / f"supervisor-{record.number}.log", os.O_WRONLY | os.O_APPEND)
    with os.fdopen(log, "ab") as output:
        process = subprocess.Popen(
            [*local_command(paths, shape, record.number), "wait"], start_new_session=True, stdin=subprocess.PIPE,
            stdout=output, stderr=output, env=env,
        )  # fmt: skip
    assert process.stdin is not None
    try:
        identity = Identity(Identity.own().machine, process.pid, process_start(process.pid) or "0")
        LaunchFiles(paths).note_process(record.number, identity.values())
        write_submission(paths)
        check_wanted(paths, record.number)
        process.stdin.write(b"go\n")
    except DiskFullError as error:
        raise LaunchError(str(error)) from error
    finally:
        with contextlib.suppress(BrokenPipeError):  # it has been ended meanwhile
            process.stdin.close()
    return dataclasses.replace(record, supervisor=identity.values()).with_job("supervisor", str(process.pid))


def local_command(paths: RunPaths, shape: Shape, number: int) -> list[str]:
    """The command of a supervisor."""
    command = [sys.executable, "-m", SUPERVISOR, str(paths.root), str(number)]
    return [*command, str(shape.ranks), str(shape.gpus_per_node * shape.nodes)]


def _debug(paths: RunPaths, config: Config, shape: Shape, start: Start, record: Launch) -> Launch:
    """A launch whose single rank the caller runs in this process, where breakpoints work."""
    return record
