"""`map_array` of many short functions by hpcjobs.Executor and by submitit, on this machine.

python -m benchmarks.functions [--calls 10000] [--workers 8] [--submitit 500]

submitit's local executor starts two processes a call, all of them as soon as they are submitted, which is one in 0.2 s:
its time grows with the calls, so that fewer of them (`--submitit`) tell what one costs.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import submitit

import hpcjobs
from hpcjobs.commands.status import read_status
from hpcjobs.run_folder.paths import RunPaths


def square(number: int) -> int:
    """A short function."""
    return number * number


def timed(calls: int, submit: Callable[[Callable[[int], int], range], Sequence[Any]]) -> tuple[float, float]:
    """Seconds until all calls are submitted, and until all have their results, which are checked."""
    began = time.perf_counter()
    jobs = submit(square, range(calls))
    submitted = time.perf_counter() - began
    results = [job.result() for job in jobs]
    assert results == [square(number) for number in range(calls)]
    return submitted, time.perf_counter() - began


def told(who: str, calls: int, submitted: float, took: float) -> str:
    """A line of the table."""
    each = 1000 * took / calls
    return f"{who:<9} {calls:>6} calls: submitted in {submitted:.1f} s, done in {took:.1f} s, {each:.1f} ms a call"


def main() -> None:
    """Run both and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--submitit", type=int, default=500)
    asked = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at the start")
    with tempfile.TemporaryDirectory() as folder:
        ours = hpcjobs.Executor(Path(folder) / "hpcjobs", "local", local_array_parallelism=asked.workers)
        print(told("hpcjobs", asked.calls, *timed(asked.calls, ours.map_array)), flush=True)
        runs = [RunPaths(path) for path in (Path(folder) / "hpcjobs").iterdir()]
        while any(read_status(run).going for run in runs):  # its table is still being merged
            time.sleep(1)
        if asked.submitit:
            theirs = submitit.AutoExecutor(Path(folder) / "submitit", "local")
            print(told("submitit", asked.submitit, *timed(asked.submitit, theirs.map_array)), flush=True)


if __name__ == "__main__":
    main()
