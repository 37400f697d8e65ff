"""The local executor: `python -m hpcjobs.launch.supervisor RUN LAUNCH [RANKS GPUS]` runs the ranks, then the merge."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import submitit

from hpcjobs.config.resolve import read_config
from hpcjobs.config.shape import shape_of
from hpcjobs.launch.entry import MERGE, RANK, enter
from hpcjobs.launch.jobs import LAUNCH_KEY
from hpcjobs.run_folder.files import stay_private
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.run_folder.process import Identity, processes_with
from hpcjobs.run_folder.submission import read_launches, together

_MONTH_MINUTES = 60 * 24 * 30
_LEFT_SECONDS = 2.0


def wait_for_go() -> None:
    """Wait until the command that has started this process has recorded it. If that was killed, end."""
    if sys.stdin.readline() != "go\n":
        print("the command that started this launch was ended before it was recorded: nothing was started")
        sys.exit(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


def supervise(run_dir: str, launch: int, ranks: int | None = None, gpus: int | None = None) -> None:
    """Start all ranks on this machine, wait until all have ended, then run the merge.

    Local ranks have no time limit: the run ends with its work, or by `hpcjobs cancel`. If ranks have joined, the last
    supervisor merges, once the earlier ones have ended.
    """
    paths = RunPaths(Path(run_dir))
    stay_private(paths.root)
    config, plan = read_config(paths.config), Plan.read(paths.plan)
    shape = shape_of(config.cluster, config.model.gpus_per_rank, script=plan.kind.alone)
    os.environ["HPCJOBS_ATTEMPT"] = f"local{launch}t{os.getpid()}"
    executor = submitit.LocalExecutor(folder=paths.logs)
    executor.update_parameters(
        tasks_per_node=ranks or shape.ranks, timeout_min=_MONTH_MINUTES, stderr_to_stdout=True,
        gpus_per_node=shape.gpus_per_node * shape.nodes if gpus is None else gpus,
    )  # fmt: skip
    job = executor.submit(enter, RANK, run_dir)
    job._process.wait()
    if plan.kind.program:
        _end_leftovers()
    for earlier in together([one for one in read_launches(paths) if one.number <= launch])[:-1]:
        while earlier.supervisor and not Identity(**earlier.supervisor).is_dead():
            time.sleep(0.2)
    if plan.kind.has("merge") or (plan.kind.alone and config.cluster.warn):
        enter(MERGE, run_dir, launch)


def _end_leftovers() -> None:
    """End what the ranks' programs have left running, as Slurm does at the end of a step."""
    key = os.environ.get(LAUNCH_KEY)
    left = [one for one in processes_with(LAUNCH_KEY, key) if one.pid != os.getpid()] if key else []
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in left:
            process.send(number)
        deadline = time.monotonic() + _LEFT_SECONDS
        while (left := [one for one in left if not one.is_dead()]) and time.monotonic() < deadline:
            time.sleep(0.05)


if __name__ == "__main__":
    if sys.argv[-1] == "wait":
        wait_for_go()
    supervise(sys.argv[1], *(int(word) for word in sys.argv[2:] if word != "wait"))
