"""`python -m hpcjobs.worker.call_task RUN`: one task of a call of several tasks, as a program of `submit script`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from hpcjobs.distributed.program_env import MEETING
from hpcjobs.distributed.rank import Rank, job_end
from hpcjobs.helpers import KEPT
from hpcjobs.run_folder.calls import Calls
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.worker.call import Task, TimeLimit, run_call
from hpcjobs.worker.call_place import call_env, job_of
from hpcjobs.worker.call_server import import_as_submitted

# EX_TEMPFAIL of sysexits(3): "start me again".
_TRY_AGAIN = os.EX_TEMPFAIL


def main(run_dir: str) -> int:
    """Run this task; returns the exit code that says to `submit script` what becomes of it."""
    paths = RunPaths(Path(run_dir))
    found = {name: os.environ.pop(name, "") for name in (*MEETING, "TORCHELASTIC_RUN_ID")}  # functions set them
    os.environ.update({KEPT + name: found[name] for name in ("MASTER_ADDR", "MASTER_PORT")})
    calls, rank = Calls(paths), Rank.from_env()
    job = job_of(paths, calls)
    import_as_submitted(calls)
    os.environ.update(call_env(paths, job, rank.launcher))
    task = Task(index=0, job_id=job, number=rank.rank, ends_at=job_end().at if rank.launcher == "slurm" else None)
    for number in (signal.SIGUSR2, signal.SIGTERM):  # while the call runs they are its own; later they may not end this
        signal.signal(number, lambda number, frame: None)
    end = run_call(paths, calls, task, TimeLimit())
    if end.outcome is None:
        return _TRY_AGAIN
    if end.message:
        print(end.message, file=sys.stderr)
    return 0 if end.outcome == "success" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
