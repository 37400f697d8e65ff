"""A program whose ranks need each other: that one was lost is told once, and all others see it within a second."""

from __future__ import annotations

import re
import time
from pathlib import Path

from hpcjobs.distributed.rank import Rank
from hpcjobs.errors import HpcJobsError
from hpcjobs.run_folder.files import create_once, make_folder
from hpcjobs.run_folder.heartbeat import Heartbeat, read_heartbeat
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.rank_state import RankState

_NAME = "lost"
_SAID = re.compile(r"rank (?P<rank>\d+)(?: on (?P<host>\S+))? \((?P<why>.*)\)", re.DOTALL)


class LostRankError(HpcJobsError):
    """Another rank was lost, and this one cannot go on without it."""


def tell_lost(paths: RunPaths, attempt: str, who: str) -> None:
    """Record that a rank of an attempt was lost: `who` is its name, its node and why. The first record stays."""
    create_once(_place(paths, attempt), who)


def read_lost(paths: RunPaths, attempt: str) -> str | None:
    """The rank that was lost first; None if none was."""
    try:
        return _place(paths, attempt).read_text(encoding="utf-8") or None
    except FileNotFoundError:
        return None


def parse_lost(said: str) -> tuple[int, str | None, str] | None:
    """Rank, node and reason in a record of a lost rank."""
    match = _SAID.fullmatch(said)
    return (int(match["rank"]), match["host"], match["why"]) if match else None


def _place(paths: RunPaths, attempt: str) -> Path:
    return make_folder(paths.rendezvous / attempt) / _NAME


class Ring:
    """Each rank watches the next one that has not ended well: so all are watched, and nobody reads all heartbeats.

    The guard of a rank that was killed says so at once. One whose heartbeat has not changed for `timeout` seconds was
    lost with its guard or its node, or is stopped. Time in which this rank could not write its own heartbeat, as on a
    file system that hangs, does not count: each of its own beats counts for at most two intervals.
    """

    def __init__(self, paths: RunPaths, rank: Rank, heartbeat: Heartbeat, timeout: float) -> None:
        self.paths, self.rank, self.heartbeat, self.timeout = paths, rank, heartbeat, timeout
        self._next, self._beats = self._after(rank.rank), (-1, -1)
        self._silent, self._beaten = 0.0, time.monotonic()

    def lost(self) -> str | None:
        """The rank that was lost, if one was; to be called about once a second."""
        if self.rank.world_size == 1:
            return None
        if (told := read_lost(self.paths, self.rank.attempt)) is None and (silent := self._look()):
            tell_lost(self.paths, self.rank.attempt, silent)
            return silent
        return told

    def _look(self) -> str | None:
        now, mine = time.monotonic(), self.heartbeat.vitals.beat
        vitals = read_heartbeat(self.paths.heartbeat(self.rank.attempt, self._next))
        if vitals and vitals.state in (RankState.DEAD, RankState.FAILED):
            return f"rank {self._next} on {vitals.host} ({vitals.ended or vitals.first_error or vitals.state})"
        if vitals and vitals.state in (RankState.DONE, RankState.DRAINED):
            self._next = self._after(self._next)
            self._silent = 0.0
        elif vitals and vitals.beat != self._beats[0]:
            self._silent = 0.0
        elif mine == self._beats[1]:  # its own heartbeat stands still, too
            return None
        else:
            self._silent += min(now - self._beaten, 2 * self.heartbeat.interval)
        self._beats, self._beaten = (vitals.beat if vitals else -1, mine), now
        if self._silent <= self.timeout or self._next == self.rank.rank:
            return None
        where = f" on {vitals.host}" if vitals else ""
        return f"rank {self._next}{where} (no sign of life for {self._silent:.0f} s)"

    def _after(self, number: int) -> int:
        return (number + 1) % self.rank.world_size
