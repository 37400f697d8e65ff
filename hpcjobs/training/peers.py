"""Watch the other ranks of a training: a lost rank is detected and named, and the others end."""

from __future__ import annotations

import logging
import os
import threading
import time

from hpcjobs.distributed.lost import LostRankError as LostRankError
from hpcjobs.distributed.rank import Rank
from hpcjobs.run_folder.heartbeat import Heartbeat, Vitals, read_heartbeat
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.rank_state import RankState

log = logging.getLogger(__name__)
_POLL_SECONDS = 1.0
# How long the main thread may take to notice a lost rank by itself, in a collective.
_GRACE_SECONDS = 10.0
# How long the guard of a killed rank may take to record it; if it died with its node, missed heartbeats show it.
_GUARD_SECONDS, _BEATS = 5.0, 3
_GONE = (RankState.DEAD, RankState.FAILED)


class Peers:
    """Watches heartbeats of this attempt: rank 0 those of all ranks, the others that of rank 0.

    So every loss is detected, and only rank 0 reads all files. A rank is lost if it ended badly, or if its heartbeat
    has not changed for `timeout` seconds by this process's clock. A rank that has none yet may take `start` seconds,
    as its node may still load an image; on this node it may take `timeout`. `interval` is the time between heartbeats
    (seconds).
    """

    def __init__(
        self, paths: RunPaths, rank: Rank, timeout: float, heartbeat: Heartbeat, interval: float = 5.0,
        start: float = 600.0,
    ) -> None:  # fmt: skip
        self._paths, self._rank, self._timeout, self._heartbeat = paths, rank, timeout, heartbeat
        self._interval, self._start, self._began = interval, max(start, timeout), time.monotonic()
        self._last_beats: dict[int, tuple[int, float]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="peers", daemon=True)

    def __enter__(self) -> Peers:
        if self._rank.world_size > 1:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def blame(self, error: BaseException, step: int) -> LostRankError | None:
        """The error to raise for an error in a collective, if a rank was lost; None if none was within a few seconds.
        """
        everybody = range(self._rank.world_size)
        first = {vitals.rank: vitals.beat for vitals in self._vitals(everybody)}
        deadline = time.monotonic() + max(_GUARD_SECONDS, _BEATS * self._interval)
        while not (lost := self._gone(everybody)) and time.monotonic() < deadline:
            time.sleep(0.1)
        if lost is None:
            still = [v for v in self._vitals(everybody) if v.ended_at is None and v.beat == first.get(v.rank)]
            lost = ", ".join(f"rank {v.rank} on {v.host} (no sign of life)" for v in still[:4])
        if not lost:
            return None
        log.info("the collective ended with: %s", error)
        return LostRankError(f"{lost} was lost after step {step}: the others cannot go on without it")

    def _run(self) -> None:
        watched = range(self._rank.world_size) if self._rank.is_main else range(1)
        lost_at: float | None = None
        while not self._stop.wait(_POLL_SECONDS):
            lost = self._gone(watched) or self._silent(watched)
            if lost is None:
                lost_at = None
            elif lost_at is None:
                lost_at = time.monotonic()
            elif time.monotonic() - lost_at > _GRACE_SECONDS:
                self._leave(f"LostRankError: {lost} was lost: the others cannot go on without it")

    def _gone(self, watched: range) -> str | None:
        """A rank that ended badly, but not because of another rank."""
        found = [vitals for vitals in self._vitals(watched) if vitals.state in _GONE]
        first = [v for v in found if not (v.first_error or "").startswith("LostRankError")]
        return _named(first[0]) if first else None

    def _silent(self, watched: range) -> str | None:
        now = time.monotonic()
        for vitals in self._vitals(watched):
            beat, since = self._last_beats.get(vitals.rank, (-1, now))
            if vitals.beat != beat or vitals.ended_at is not None:
                self._last_beats[vitals.rank] = vitals.beat, now
            elif now - since > self._timeout:
                return f"rank {vitals.rank} on {vitals.host} (no sign of life for {now - since:.0f} s)"
        return self._never_seen(watched, now - self._began)

    def _never_seen(self, watched: range, waited: float) -> str | None:
        """A rank that died, or was stopped, before its first heartbeat."""
        if waited <= self._timeout:
            return None
        first = self._rank.rank - self._rank.local_rank
        here = range(first, first + self._rank.local_world_size)
        late = [number for number in watched if number in here or waited > self._start]
        known = {self._rank.rank, *self._last_beats}
        unseen = [number for number in late if number not in known]
        return f"rank {unseen[0]} (no sign of life for {waited:.0f} s, since the start)" if unseen else None

    def _vitals(self, watched: range) -> list[Vitals]:
        others = (number for number in watched if number != self._rank.rank)
        found = (read_heartbeat(self._paths.heartbeat(self._rank.attempt, number)) for number in others)
        return [vitals for vitals in found if vitals]

    def _leave(self, why: str) -> None:
        """End the process: its main thread waits for a rank that is gone."""
        log.error("%s", why)
        self._heartbeat.vitals.first_error = why[:400]
        self._heartbeat.end_now(RankState.FAILED, why)
        logging.shutdown()
        os._exit(1)


def _named(vitals: Vitals) -> str:
    why = vitals.ended or vitals.first_error
    return f"rank {vitals.rank} on {vitals.host}" + (f" ({why})" if why else "")


