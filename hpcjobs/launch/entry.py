"""The modules and functions that jobs start, by name: launch must not import later stages."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

from hpcjobs.launch.slurm import clean_environment
from hpcjobs.run_folder.files import open_file
from hpcjobs.run_folder.paths import RunPaths

# Entry points of jobs, as `module:function`: a rank under its guard, and the merge after the ranks.
RANK = "hpcjobs.worker.__main__:guard_rank"
MERGE = "hpcjobs.commands.finish:guard_merge"
# Modules that are started by `python -m`.
SUPERVISOR = "hpcjobs.launch.supervisor"
RESTARTS = "hpcjobs.launch.restarts"
THEN_EVAL = "hpcjobs.commands.then_eval"


def enter(entry: str, *args: str | int) -> None:
    """Call `module:function` with `args`. Jobs pickle this function, with a name, a path and a number."""
    module, _, function = entry.partition(":")
    getattr(importlib.import_module(module), function)(*args)


def begin_evals(paths: RunPaths, apart: bool) -> subprocess.Popen[bytes]:
    """Start a process that launches the evals that are due (hpcjobs.commands.then_eval).

    `apart`: in a session of its own, so that it outlives this process.
    """
    with os.fdopen(open_file(paths.logs / "then_eval.log", os.O_WRONLY | os.O_APPEND), "ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", THEN_EVAL, str(paths.root)], env=clean_environment(),
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=apart,
        )  # fmt: skip
