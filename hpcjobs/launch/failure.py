"""How an attempt of a program has ended, from its ranks' files: what decides on another one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from hpcjobs.distributed.drain import ASKS_AGAIN
from hpcjobs.distributed.lost import parse_lost, read_lost, tell_lost
from hpcjobs.run_folder.heartbeat import Vitals, read_heartbeat
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.rank_state import RankState

_IN_ORDER = {RankState.DONE, RankState.DRAINED}
# How long the last heartbeats of other nodes may take to become visible (seconds).
_VISIBLE_SECONDS = 5.0
# What one look at a silent rank counts for at most (seconds).
_LONG_LOOK = 2.0


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The first cause of the end of an attempt: `rank` on `host`, and how it ended.

    `silent` are the nodes of ranks that have said no end. `own`: the rank has ended by itself, and not with its node or
    because it stood still. `fatal`: another start would fail in the same way.
    """

    rank: int | None
    host: str | None
    why: str
    silent: frozenset[str] = frozenset()
    own: bool = True
    fatal: bool = False


class AttemptFiles:
    """The files of an attempt's ranks. `nodes`, if known, has the node of each rank."""

    def __init__(self, paths: RunPaths, attempt: str, ranks: int, nodes: Sequence[str] = ()) -> None:
        self.paths, self.attempt, self.ranks, self.nodes = paths, attempt, ranks, nodes
        self._beat, self._silent, self._looked = -1, 0.0, time.monotonic()

    def told(self) -> bool:
        """Whether a rank was lost; the others are then ending."""
        return read_lost(self.paths, self.attempt) is not None

    def others_ended(self, alone: bool = False) -> bool:
        """Whether all ranks have ended but the one that was lost, and those on its node unless that is `alone`."""
        rank, host, _ = parse_lost(read_lost(self.paths, self.attempt) or "") or (None, None, "")
        left = [one for one in self._vitals().values() if one.ended_at is None and one.rank != rank]
        return not left if alone else all(one.host == host for one in left)

    def watch(self, timeout: float) -> None:
        """Tell of rank 0 where it has been silent for so long; to be called about once a second.

        The ranks watch each other. Only if all are gone, as where they were on one node, nobody of them tells. Time in
        which the file system did not answer does not count.
        """
        vitals, now = read_heartbeat(self.paths.heartbeat(self.attempt, 0)), time.monotonic()
        passed, self._looked = min(now - self._looked, _LONG_LOOK), now
        if vitals is None or vitals.ended_at is not None or vitals.beat != self._beat:
            self._beat, self._silent = vitals.beat if vitals else -1, 0.0
            return
        self._silent += passed
        if self._silent > timeout:
            tell_lost(self.paths, self.attempt, f"rank 0 on {vitals.host} (no sign of life for {timeout:.0f} s)")

    def failure(self) -> Failure | None:
        """What has ended the attempt; None if all its ranks have ended in order."""
        vitals = self._settled()
        states = {one.state for one in vitals.values()}
        told = read_lost(self.paths, self.attempt)
        if len(vitals) == self.ranks and states <= _IN_ORDER:
            return None
        silent = {one.host for one in vitals.values() if one.ended_at is None}
        absent = [rank for rank in range(self.ranks) if rank not in vitals]
        if told and ASKS_AGAIN not in told and (said := parse_lost(told)):
            rank, host, why = said
            return self._of(vitals, rank, host or self._host(rank), why, silent)
        if failed := [one for one in vitals.values() if one.state not in _IN_ORDER and one.ended_at is not None]:
            first = min(failed, key=_order)
            if absent and (first.first_error or "").startswith("RendezvousError"):  # it waited for them in vain
                return Failure(rank=absent[0], host=self._host(absent[0]), why="it has never begun", own=False)
            why = first.ended or first.first_error or str(first.state)
            return self._of(vitals, first.rank, first.host, why, silent)
        if left := [one for one in vitals.values() if one.ended_at is None]:
            return self._of(vitals, left[0].rank, left[0].host, "no sign of life", silent)
        if not vitals:
            why = "none of its ranks has begun: what started them has said why in hpcjobs logs"
            return Failure(rank=None, host=None, why=why, own=False)
        if absent:
            return Failure(rank=absent[0], host=self._host(absent[0]), why="it has never begun", own=False)
        return Failure(rank=None, host=None, why="its ranks have ended, and none has said why")

    def _of(self, vitals: dict[int, Vitals], rank: int, host: str | None, why: str, silent: set[str]) -> Failure:
        mine = vitals.get(rank)
        gone = mine is None or mine.ended_at is None
        stood_still = "by its guard" in why or "stopped for" in why or "no sign of life" in why
        own, fatal = not (gone or stood_still), any(one.fatal for one in vitals.values())
        return Failure(rank=rank, host=host, why=why, silent=frozenset(silent), own=own, fatal=fatal)

    def _host(self, rank: int) -> str | None:
        return self.nodes[rank] if rank < len(self.nodes) else None

    def _vitals(self) -> dict[int, Vitals]:
        found = (read_heartbeat(self.paths.heartbeat(self.attempt, rank)) for rank in range(self.ranks))
        return {one.rank: one for one in found if one}

    def _settled(self) -> dict[int, Vitals]:
        """The heartbeats, once all have an end, or none comes any more."""
        deadline = time.monotonic() + _VISIBLE_SECONDS
        while True:
            vitals = self._vitals()
            whole = len(vitals) == self.ranks and all(one.ended_at is not None for one in vitals.values())
            if whole or time.monotonic() > deadline:
                return vitals
            time.sleep(0.2)


def _order(vitals: Vitals) -> tuple[bool, float]:
    """A rank that ended because another was lost is no cause."""
    return (vitals.first_error or "").startswith("LostRankError"), vitals.ended_at or 0.0
