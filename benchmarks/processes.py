"""A whole process of hpcjobs, timed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Took:
    """What a process printed, its seconds, and its peak memory in bytes (ru_maxrss).

    Linux counts into the peak what the parent held when it was forked: do what is large in another process.
    """

    output: str
    seconds: float
    peak: int


def hpcjobs(words: Sequence[str], env: Mapping[str, str]) -> Took:
    """`python -m hpcjobs WORDS`, which must end with 0."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "hpcjobs", *words]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        output = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        seconds, child.returncode = time.perf_counter() - began, os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, f"hpcjobs {' '.join(words)} ended with {child.returncode}"
    return Took(output, seconds, usage.ru_maxrss * 1024)
