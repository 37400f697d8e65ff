"""The local executor: `python -m hpcjobs.launch.supervisor RUN LAUNCH [RANKS GPUS]` runs the ranks, then the merge."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import submitit

from hpcjobs.config.resolve import read_config
from hpcjobs.config.shape import shape_of
from hpcjobs.launch.budget import Budget
from hpcjobs.launch.entry import MERGE, RANK, enter
from hpcjobs.launch.jobs import LAUNCH_KEY
from hpcjobs.launch.local_program import MONTH_MINUTES, run_programs
from hpcjobs.run_folder.files import stay_private
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.run_folder.process import Identity, end_processes
from hpcjobs.run_folder.submission import read_launches, together


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
    if plan.kind.alone:
        record = next((one for one in read_launches(paths) if one.number == launch), None)
        run_programs(Budget(paths, config, launch), replace(shape, workers=1), record.indexes if record else ())
    else:
        _run_ranks(paths, launch, ranks or shape.ranks, shape.gpus_per_node * shape.nodes if gpus is None else gpus)
    if plan.kind.program:
        _end_leftovers()
    for earlier in together([one for one in read_launches(paths) if one.number <= launch])[:-1]:
        while earlier.supervisor and not Identity(**earlier.supervisor).is_dead():
            time.sleep(0.2)
    if plan.kind.has("merge") or (plan.kind.alone and config.cluster.warn):
        enter(MERGE, run_dir, launch)


def _run_ranks(paths: RunPaths, launch: int, ranks: int, gpus: int) -> None:
    """Ranks that share a ledger or go in step: each start is one job."""
    os.environ["HPCJOBS_ATTEMPT"] = f"local{launch}t{os.getpid()}"
    executor = submitit.LocalExecutor(folder=paths.logs)
    executor.update_parameters(
        tasks_per_node=ranks, timeout_min=MONTH_MINUTES, stderr_to_stdout=True, gpus_per_node=gpus
    )
    executor.submit(enter, RANK, str(paths.root))._process.wait()


def _end_leftovers() -> None:
    """End what the ranks' programs have left running, as Slurm does at the end of a step."""
    if key := os.environ.get(LAUNCH_KEY):
        end_processes(LAUNCH_KEY, key)


if __name__ == "__main__":
    if sys.argv[-1] == "wait":
        wait_for_go()
    supervise(sys.argv[1], *(int(word) for word in sys.argv[2:] if word != "wait"))
