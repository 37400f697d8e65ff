"""The local executor's supervisor: `python -m hpcjobs.supervisor RUN LAUNCH` runs the ranks, then the merge."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import submitit

from hpcjobs.entry import finish_run
from hpcjobs.paths import RunPaths
from hpcjobs.plan import Plan
from hpcjobs.resolve import read_config
from hpcjobs.shape import shape_of
from hpcjobs.worker import run_rank

_MONTH_MINUTES = 60 * 24 * 30


def supervise(run_dir: str, launch: str) -> None:
    """Start all ranks on this machine, wait for them however they end, then judge by the journals.

    Local ranks have no time limit: the run ends when its work does, or by `hpcjobs cancel`.
    """
    paths = RunPaths(Path(run_dir))
    config, plan = read_config(paths.config), Plan.read(paths.plan)
    shape = shape_of(config.cluster, config.model.gpus_per_rank, script=plan.job == "script")
    os.environ["HPCJOBS_ATTEMPT"] = f"local{launch}t{os.getpid()}"
    executor = submitit.LocalExecutor(folder=paths.logs)
    executor.update_parameters(
        tasks_per_node=shape.ranks, gpus_per_node=shape.gpus_per_node * shape.nodes, timeout_min=_MONTH_MINUTES,
        stderr_to_stdout=True,
    )  # fmt: skip
    job = executor.submit(run_rank, run_dir)
    job._process.wait()
    if plan.job != "script":
        finish_run(run_dir)


if __name__ == "__main__":
    supervise(sys.argv[1], sys.argv[2])
