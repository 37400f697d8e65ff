"""Launch: queue the ranks and the merge job behind them, or start them on this machine."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from hpcjobs import slurm
from hpcjobs.config import Config
from hpcjobs.errors import HpcJobsError, LaunchError, UsageError
from hpcjobs.identity import Identity
from hpcjobs.paths import RunPaths
from hpcjobs.rank import process_start
from hpcjobs.shape import Shape
from hpcjobs.submission import Launch, read_launches, record_launch


def executor_of(config: Config) -> str:
    """slurm, local or debug; `auto` is slurm where its commands are. A UsageError where it is not to be had."""
    wanted = config.cluster.executor
    if wanted == "auto":
        return "slurm" if slurm.available() else "local"
    if wanted == "slurm" and not slurm.available():
        raise UsageError(
            "--executor slurm: no sbatch and squeue on PATH, this machine has no Slurm; use --executor local, or log "
            "in to the cluster"
        )
    return wanted


def launch(paths: RunPaths, config: Config, shape: Shape, with_merge: bool, automatic: bool = False) -> Launch:
    """Start a planned run and record it in submission.json; a LaunchError where the queue refuses it."""
    number = len(read_launches(paths))
    start = {"slurm": _slurm, "local": _local, "debug": _debug}[executor_of(config)]
    started = dataclasses.replace(start(paths, config, shape, with_merge, number), automatic=automatic)
    record_launch(paths, started)
    return started


def _slurm(paths: RunPaths, config: Config, shape: Shape, with_merge: bool, number: int) -> Launch:
    from hpcjobs.entry import finish_run
    from hpcjobs.sbatch import merge_executor, work_executor
    from hpcjobs.worker import run_rank

    work = work_executor(config, shape, paths)
    jobs, texts = {"work": work.queue(run_rank, paths)}, {"work": work.script}
    record = Launch(number, "slurm", jobs, str(shape), shape.ranks, texts, ["sbatch --parsable SCRIPT"])
    try:
        record_launch(paths, record)
        if with_merge:
            merge = merge_executor(config, jobs["work"], paths)
            jobs["merge"], texts["merge"] = merge.queue(finish_run, paths), merge.script
            record_launch(paths, record)
    except BaseException as error:
        _take_back(jobs.values(), paths, error)
        raise
    return record


def _take_back(job_ids: Iterable[str], paths: RunPaths, why: BaseException) -> None:
    """Half a submission is none; where it cannot be taken back, its folder must stay: a live job needs it."""
    try:
        slurm.cancel(job_ids)
    except LaunchError as error:
        raise HpcJobsError(f"{why}; and the job is still queued: {error}; next: hpcjobs cancel {paths.root}") from why


def _local(paths: RunPaths, config: Config, shape: Shape, with_merge: bool, number: int) -> Launch:
    """A supervisor in a session of its own: it outlives this terminal."""
    command = [sys.executable, "-m", "hpcjobs.supervisor", str(paths.root), str(number)]
    record_launch(paths, Launch(number, "local", {}, str(shape), shape.ranks, commands=[" ".join(command)]))
    env = slurm.clean_environment() | config.cluster.env
    with (paths.logs / f"supervisor-{number}.log").open("ab") as output:
        process = subprocess.Popen(
            command, start_new_session=True, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env
        )
    identity = Identity(Identity.own().machine, process.pid, process_start(process.pid) or "0")
    record = Launch(
        number,
        "local",
        {"supervisor": str(process.pid)},
        str(shape),
        shape.ranks,
        {},
        [" ".join(command)],
        identity.values(),
    )
    record_launch(paths, record)
    return record


def _debug(paths: RunPaths, config: Config, shape: Shape, with_merge: bool, number: int) -> Launch:
    """One rank, in this process: break points work, errors are raised where they happen."""
    from hpcjobs.entry import merge_and_report
    from hpcjobs.worker import run_rank

    if shape.ranks > 1:
        raise UsageError(f"--executor debug runs one rank in this process, not {shape.ranks}: use --executor local")
    record = Launch(number, "debug", {}, str(shape), 1, commands=[f"python -m hpcjobs.worker {paths.root}"])
    record_launch(paths, record)
    os.environ.update(config.cluster.env)
    run_rank(str(paths.root))
    if with_merge:
        merge_and_report(RunPaths(Path(paths.root)))
    return record
