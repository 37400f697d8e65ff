"""The ledger: which chunk next. Claims, leases and takeovers over a shared folder, without a server."""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hpcjobs.chunks import ChunkList
from hpcjobs.claims import Claims, Former, Lease, Listing
from hpcjobs.errors import MergeError
from hpcjobs.journal import read_journal
from hpcjobs.rank import Rank

log = logging.getLogger(__name__)


class LeaseWatch:
    """Tells whether a holder is lost: gave the chunk back, dead on this machine, of an ended attempt, or silent.

    Silence is measured by this process's monotonic clock from when it first looked; the clocks of two
    hosts are never compared.
    """

    def __init__(
        self, heartbeats: Path, rank: Rank, timeout: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._heartbeats, self._rank, self._timeout, self._clock = heartbeats, rank, timeout, clock
        self._seen: dict[str, tuple[bytes, float]] = {}

    def lost(self, lease: Lease) -> bool:
        if lease.released:
            return True
        return lease.identity.is_dead() or self._rank.succeeds(lease.attempt) or self._silent(lease)

    def _silent(self, lease: Lease) -> bool:
        name = f"{lease.attempt}-{lease.rank}"
        beat = b""
        with contextlib.suppress(OSError):
            beat = (self._heartbeats / f"{name}.json").read_bytes()
        last, since = self._seen.get(name, (None, 0.0))
        if beat != last:
            self._seen[name] = (beat, self._clock())
            return False
        return self._clock() - since > self._timeout


@dataclass(frozen=True)
class Rules:
    """static: the first walk alone. deterministic: a chunk that was left half done is redone as a whole."""

    static: bool = False
    deterministic: bool = False


class Ledger:
    """One rank's view of a round: `claim` a chunk, then say `done`.

    `owner` is a lease template that names this rank; `rank` and `world_size` of it set the first walk
    r, r+W, r+2W..., in which claims do not collide until the tail.
    """

    def __init__(
        self, claims: Claims, chunks: ChunkList, owner: Lease, watch: LeaseWatch, world: tuple[int, int], rules: Rules
    ) -> None:
        self._claims, self._chunks, self._owner, self._watch, self._rules = claims, chunks, owner, watch, rules
        rank, world_size = world
        stride = range(rank, len(chunks), world_size)
        self._universe = set(stride) if rules.static else set(range(len(chunks)))
        self._listing = claims.list()
        self._walk = [chunk for chunk in reversed(stride) if chunk not in self._listing.leased]
        self._leases: dict[tuple[int, int], Lease] = {}
        self._ours: set[int] = set()
        self._free: list[int] = []

    def claim(self) -> Lease | None:
        """The next chunk to run, or None where none is to be had now (`over` tells whether ever)."""
        return self._walk_on() or self._take_free() or self._look_again()

    def over(self) -> bool:
        """Whether every chunk that this rank could run is settled, as of the last look."""
        return not self._walk and self._universe <= self._listing.settled

    def near_end(self, batch: int) -> bool:
        """Whether so little is left of our own walk that taking more than a batch would leave others idle."""
        return len(self._walk) <= 4 * batch

    def done(self, lease: Lease) -> bool:
        """Settle a chunk whose samples are all durable in journals; False: somebody else had, nothing is lost."""
        self._ours.discard(lease.chunk)
        self._listing.done.add(lease.chunk)
        won = self._claims.done(lease)
        if not won:
            log.warning("chunk %d was done by another rank meanwhile: our results of it are not used", lease.chunk)
        return won

    def release(self, lease: Lease, whole: Sequence[int], why: str, suspects: Sequence[int] = ()) -> None:
        """Give an unfinished chunk back: of it the samples `whole`, which are durable in our journal, count."""
        self._ours.discard(lease.chunk)
        if release(self._claims, lease, () if self._rules.deterministic else whole, why, suspects):
            log.info("gave chunk %d back with %d samples of it done: %s", lease.chunk, len(whole), why)

    def superseded(self, lease: Lease) -> bool:
        """Whether somebody has taken this chunk from us, or settled it: asks for its files alone."""
        generation, settled = self._claims.kinds(lease.chunk)
        return settled or generation > lease.generation

    def todo(self, lease: Lease) -> list[int]:
        """The samples of a lease that are still to run."""
        counted = lease.counted
        return [index for index in self._chunks[lease.chunk] if index not in counted]

    def _walk_on(self) -> Lease | None:
        while self._walk:
            if lease := self._try(self._walk.pop(), 0, ()):
                return lease
        return None

    def _take_free(self) -> Lease | None:
        while self._free:
            if lease := self._try(self._free.pop(), 0, ()):
                return lease
        return None

    def _look_again(self) -> Lease | None:
        self._listing = self._claims.list()
        open_chunks = self._universe - self._listing.settled
        self._free = [chunk for chunk in open_chunks if chunk not in self._listing.leased]
        random.shuffle(self._free)
        return self._take_free() or self._take_over(open_chunks, self._listing)

    def _take_over(self, open_chunks: set[int], listing: Listing) -> Lease | None:
        held = list(open_chunks - self._ours)
        random.shuffle(held)  # many ranks look at the same time
        for chunk in held:
            generation = listing.leased.get(chunk)
            if generation is None:
                continue
            lease = self._lease(chunk, generation)
            if self._watch.lost(lease):
                former = () if self._rules.deterministic else self.whole_samples(lease)
                if taken := self._try(chunk, generation + 1, former, lease.suspects):
                    _say_taken(lease)
                    return taken
        return None

    def _try(
        self, chunk: int, generation: int, former: tuple[Former, ...], suspects: tuple[int, ...] = ()
    ) -> Lease | None:
        lease = replace(self._owner, chunk=chunk, generation=generation, former=former, suspects=suspects)
        self._listing.leased[chunk] = max(generation, self._listing.leased.get(chunk, 0))
        if not self._claims.lease(lease):
            return None
        self._ours.add(chunk)
        return lease

    def _lease(self, chunk: int, generation: int) -> Lease:
        key = (chunk, generation)
        if key not in self._leases:
            self._leases[key] = self._claims.read_lease(chunk, generation)
        return self._leases[key]

    def whole_samples(self, lease: Lease) -> tuple[Former, ...]:
        """What counts of a lost lease: its own former samples, and those whole in its holder's journal."""
        return whole_samples(lease, self._claims.folder.parent.parent / "ranks", set(self._chunks[lease.chunk]))


def _say_taken(lease: Lease) -> None:
    from_whom = f"rank {lease.rank} of attempt {lease.attempt} on {lease.host}"
    if lease.released:
        log.info("took chunk %d, which %s gave back: %s", lease.chunk, from_whom, lease.released)
    else:
        log.warning("took over chunk %d from %s: lost", lease.chunk, from_whom)


def release(claims: Claims, lease: Lease, whole: Sequence[int], why: str, suspects: Sequence[int] = ()) -> bool:
    """Give the chunk of `lease` back with the samples `whole` of its journal done; False where it was taken before."""
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
