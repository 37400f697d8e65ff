"""Taking over a chunk: whether its holder is lost, what of its work counts, and giving a chunk back."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from hpcjobs.errors import MergeError
from hpcjobs.run_folder.journal.journal import read_journal
from hpcjobs.run_folder.ledger.claims import Claims, Former, Lease

log = logging.getLogger(__name__)


class LeaseWatch:
    """Decides whether a lease is lost: given back, its process dead, its attempt ended, or its heartbeat silent.

    Silence is measured with this process's monotonic clock, from its first look; clocks of two hosts are never
    compared.
    """

    def __init__(
        self,
        heartbeats: Path,
        succeeds: Callable[[str], bool],
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._heartbeats, self._succeeds, self._timeout, self.clock = heartbeats, succeeds, timeout, clock
        self._last_heartbeats: dict[str, tuple[bytes, float]] = {}

    def lost(self, lease: Lease) -> bool:
        """Whether the holder of the lease is lost."""
        if lease.released:
            return True
        return lease.identity.is_dead() or self._succeeds(lease.attempt) or self._silent(lease)

    def _silent(self, lease: Lease) -> bool:
        name = f"{lease.attempt}-{lease.rank}"
        heartbeat = b""
        with contextlib.suppress(OSError):
            heartbeat = (self._heartbeats / f"{name}.json").read_bytes()
        last, since = self._last_heartbeats.get(name, (None, 0.0))
        if heartbeat != last:
            self._last_heartbeats[name] = (heartbeat, self.clock())
            return False
        return self.clock() - since > self._timeout


def _log_takeover(lease: Lease) -> None:
    from_whom = f"rank {lease.rank} of attempt {lease.attempt} on {lease.host}"
    if lease.released:
        log.info("took chunk %d, which %s gave back: %s", lease.chunk, from_whom, lease.released)
    else:
        log.warning("took over chunk %d from %s: lost", lease.chunk, from_whom)


def release(claims: Claims, lease: Lease, whole: Sequence[int], why: str, suspects: Sequence[int] = ()) -> bool:
    """Give back the chunk of a lease, with the samples `whole` finished. False if it was taken over before."""
    former = (*lease.former, Former(lease.journal, lease.generation, tuple(whole))) if whole else lease.former
    given = replace(
        lease, generation=lease.generation + 1, journal="", former=former, released=why,
        suspects=(*lease.suspects, *suspects),
    )  # fmt: skip
    return claims.lease(given)


def whole_samples(lease: Lease, ranks: Path, members: set[int]) -> tuple[Former, ...]:
    """The samples of a lease's chunk (`members`) that are whole in journals."""
    found: dict[int, None] = {}
    if not lease.journal:  # given back, or a closer that died before it closed
        return lease.former
    try:
        for record in read_journal(ranks / lease.journal):
            if (record.chunk, record.generation) == (lease.chunk, lease.generation) and record.index in members:
                found[record.index] = None
    except FileNotFoundError:
        log.warning("journal %s is gone: its samples of chunk %d are run again", lease.journal, lease.chunk)
    except MergeError as error:
        log.warning("%s: its samples of chunk %d are run again", error, lease.chunk)
        found = {}
    fresh = tuple(index for index in found if index not in lease.counted)
    return (*lease.former, Former(lease.journal, lease.generation, fresh)) if fresh else lease.former
