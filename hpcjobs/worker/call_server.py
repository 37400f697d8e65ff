"""`python -m hpcjobs.worker.call_server RUN REQUESTS REPLIES`: runs the calls that a rank asks for, one by one.

One process for many calls, so that what a function imports is imported once. Each call finds the environment and the
working directory as they were. Requests and replies are lines on inherited pipes: JSON, and `begun`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from hpcjobs.run_folder.calls import Calls
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.worker.call import BEGUN, Task, TimeLimit, run_call


def serve(run_dir: str, requests: int, replies: int) -> None:
    """Run calls until the rank closes its pipe, or one leaves before its end."""
    paths = RunPaths(Path(run_dir))
    calls = Calls(paths)
    import_as_submitted(calls)
    for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):  # between two calls, only the rank ends this process
        signal.signal(number, lambda number, frame: None)
    here, env, limit = os.getcwd(), dict(os.environ), TimeLimit(lambda: os.write(replies, BEGUN + b"\n"))
    with os.fdopen(requests) as lines:
        for line in lines:
            asked = json.loads(line)
            _restore(here, env)
            os.environ.update(asked["env"])
            signal.signal(signal.SIGINT, signal.default_int_handler)
            end = run_call(paths, calls, Task(**asked["task"]), limit)
            signal.signal(signal.SIGINT, lambda number, frame: None)
            os.write(replies, json.dumps(asdict(end)).encode() + b"\n")
            if end.outcome is None:
                break


def import_as_submitted(calls: Calls) -> None:
    """Import from the working directory and where the submitting process did, before anything else."""
    own = [folder for folder in sys.path if folder not in calls.facts.path]
    sys.path[:] = ["", *(folder for folder in calls.facts.path if folder), *filter(None, own)]


def _restore(here: str, env: dict[str, str]) -> None:
    if dict(os.environ) != env:
        os.environ.clear()
        os.environ.update(env)
    os.chdir(here)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
