"""End a rank that is stopped: it would hold its allocation up to the time limit, and nobody else can end it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from hpcjobs.config.resolve import read_config
from hpcjobs.distributed.rank import Rank
from hpcjobs.run_folder.heartbeat import read_heartbeat, read_heartbeats
from hpcjobs.run_folder.job_kinds import JobKind
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan


class StoppedRank:
    """Watches a rank for its guard. `why` is set before the rank is ended.

    A rank is ended if it could not run for `run.lease_timeout`, that of a program for `cluster.lost_after`, and nothing
    is left for it: in a training or a program, whose other ranks cannot go on without it, or when all other ranks of
    its attempt have ended. Time in which this process was stopped itself, as by `scontrol suspend`, does not count.
    """

    def __init__(self, paths: RunPaths) -> None:
        self._paths = paths
        self._beat = -1
        self.why: str | None = None

    def watch(self, pid: int) -> None:
        """Return when the process `pid` has been ended, or is not to be watched."""
        with contextlib.suppress(Exception):  # the rank itself says what is wrong with its run
            config, kind = read_config(self._paths.config), Plan.read(self._paths.plan).kind
            run = config.run
            if kind.unit != "none" or (kind.alone and config.cluster.on_rank_failure == "end"):
                timeout = config.lost_after if kind.alone else run.lease_timeout
                self._watch(pid, kind, Rank.from_env(), run.heartbeat, timeout)

    def _watch(self, pid: int, kind: JobKind, rank: Rank, tick: float, timeout: float) -> None:
        still, last = 0.0, time.monotonic()
        while still <= timeout:
            time.sleep(tick)
            now = time.monotonic()
            still = still + min(now - last, 2 * tick) if self._is_lost(pid, kind, rank) else 0.0
            last = now
        self.why = f"no sign of life for {still:.0f} s"
        os.kill(pid, signal.SIGKILL)

    def _is_lost(self, pid: int, kind: JobKind, rank: Rank) -> bool:
        if kind.unit != "answers":
            return is_stopped(pid) or (rank.world_size > 1 and self._is_silent(rank))
        return is_stopped(pid) and self._is_alone(rank)

    def _is_silent(self, rank: Rank) -> bool:
        """Whether the heartbeat has not changed since the last call."""
        vitals, before = read_heartbeat(self._paths.heartbeat(rank.attempt, rank.rank)), self._beat
        self._beat = vitals.beat if vitals else before
        return vitals is not None and vitals.ended_at is None and vitals.beat == before

    def _is_alone(self, rank: Rank) -> bool:
        """Whether all other ranks have ended."""
        others = [one for one in read_heartbeats(self._paths.heartbeats) if one.attempt == rank.attempt]
        return all(one.ended_at is not None for one in others if one.rank != rank.rank)


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped the process (proc(5), state T)."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"T"
    except (OSError, IndexError):
        return False
