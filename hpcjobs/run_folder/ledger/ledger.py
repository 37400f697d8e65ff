"""The ledger: which chunk to run next. Claims, leases and takeovers in a shared folder, without a server."""

from __future__ import annotations

import hashlib
import logging
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hpcjobs.run_folder.ledger.chunks import ChunkList
from hpcjobs.run_folder.ledger.claims import Claims, Former, Lease
from hpcjobs.run_folder.ledger.takeover import LeaseWatch, _log_takeover, release, whole_samples

log = logging.getLogger(__name__)
# After this many chunks in a row that are not free any more, list the folder again; and the most such looks in a row.
_MISSES, _LOOKS = 8, 4
# Free chunks among which a rank chooses: enough for ranks that look at the same time (the world size does not count
# array workers and joined jobs), few enough to keep the longest first.
_FEW_TAKERS, _RANKS_A_TAKER = 64, 16
# A folder of up to this many files is listed again at once; a larger one after a pause (seconds) per file.
_SMALL_FOLDER, _PAUSE_AN_ENTRY, _MOST_PAUSE = 2048, 1e-3, 30.0
# Up to this many chunks are watched by every idle rank; of more, each by about this many ranks.
_FEW_LEASED, _WATCHERS = 16, 4


@dataclass(frozen=True)
class Rules:
    """static: only the rank's own walk, no takeovers. deterministic: an unfinished chunk is redone as a whole."""

    static: bool = False
    deterministic: bool = False


class Ledger:
    """One rank's view of a round: `claim` a chunk, run it, then mark it `done`.

    `owner` is a template of this rank's leases; `world` is its (rank, world size), which sets the first walk r, r+W,
    r+2W..., so that ranks do not compete for chunks before the end.
    """

    def __init__(
        self, claims: Claims, chunks: ChunkList, owner: Lease, watch: LeaseWatch, world: tuple[int, int], rules: Rules
    ) -> None:
        self._claims, self._chunks, self._owner, self._watch, self._rules = claims, chunks, owner, watch, rules
        self._rank, self._world_size = world
        self._sizes = np.diff(chunks.starts)
        stride = range(self._rank, len(chunks), self._world_size)
        self._universe = np.full(len(chunks), not rules.static)
        self._universe[stride.start :: stride.step] = True
        self._look()
        self._walk = [chunk for chunk in reversed(stride) if self._leased[chunk] < 0]
        self._leases: dict[tuple[int, int], Lease] = {}
        self._ours: set[int] = set()
        self._free: list[int] = []
        self._in_vain, self._next_look = 0, -math.inf

    def claim(self) -> Lease | None:
        """Lease the next chunk; None if none is available now. `over` says whether there may be one later."""
        return self._walk_on() or self._take_free() or self._look_again()

    def over(self) -> bool:
        """Whether every chunk that this rank may run is settled, as of the last look."""
        return not self._walk and bool(self._settled[self._universe].all())

    def near_end(self, batch: int) -> bool:
        """Whether so few chunks of this rank's walk are left that taking more than a batch would leave others idle."""
        return len(self._walk) <= 4 * batch

    def samples_left(self) -> int:
        """The samples of chunks that are not settled, those in progress included, as of the last look."""
        return int(self._sizes[~self._settled].sum())

    def done(self, lease: Lease) -> bool:
        """Mark a chunk as done, whose samples are all durable. False if another rank had done it before; nothing is
        lost.
        """
        self._ours.discard(lease.chunk)
        self._settled[lease.chunk] = True
        won = self._claims.done(lease)
        if not won:
            log.warning("chunk %d was done by another rank meanwhile: our results of it are not used", lease.chunk)
        return won

    def release(self, lease: Lease, whole: Sequence[int], why: str, suspects: Sequence[int] = ()) -> None:
        """Give back an unfinished chunk. Its samples in `whole`, which are durable in this rank's journal, count."""
        self._ours.discard(lease.chunk)
        if release(self._claims, lease, () if self._rules.deterministic else whole, why, suspects):
            log.info("gave chunk %d back with %d samples of it done: %s", lease.chunk, len(whole), why)

    def superseded(self, lease: Lease) -> bool:
        """Whether another rank has taken over or settled this chunk. Reads this chunk's files only."""
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
        """Lease a chunk that was free at the last look. After several that are not any more, a new look is needed."""
        for _ in range(_MISSES):
            if not self._free:
                return None
            chunk = self._free.pop()
            if not self._claims.is_leased(chunk) and (lease := self._try(chunk, 0, ())):
                return lease
        self._free = []
        return None

    def _look_again(self) -> Lease | None:
        """List the folder and lease a free or lost chunk. Large folders are listed again only after a pause."""
        if self._watch.clock() < self._next_look:
            return None
        for _ in range(_LOOKS):
            self._look()
            self._free = self._free_chunks()
            if not self._free:
                break
            if lease := self._take_free():
                self._in_vain = 0
                return lease
        lease = self._take_over()
        self._in_vain = 0 if lease else self._in_vain + 1
        self._next_look = self._watch.clock() + (0.0 if lease else self._pause())
        return lease

    def _look(self) -> None:
        """List the folder, and keep its content as arrays by chunk, to use little memory."""
        listing, count = self._claims.list(), len(self._chunks)
        self._entries = len(listing.leased) + len(listing.done) + len(listing.closed)
        self._leased, self._settled = np.full(count, -1, np.int32), np.zeros(count, np.bool_)
        leased = np.fromiter(listing.leased, np.int64, len(listing.leased))
        inside = leased < count
        self._leased[leased[inside]] = np.fromiter(listing.leased.values(), np.int64, len(leased))[inside]
        for kind in (listing.done, listing.closed):
            settled = np.fromiter(kind, np.int64, len(kind))
            self._settled[settled[settled < count]] = True

    def _free_chunks(self) -> list[int]:
        """Free chunks, to be popped: longest first, but in random order among as many as there may be takers."""
        found: list[int] = np.flatnonzero(self._universe & ~self._settled & (self._leased < 0))[::-1].tolist()
        takers = max(_FEW_TAKERS, self._world_size // _RANKS_A_TAKER)
        for end in range(len(found), 0, -takers):
            part = found[max(0, end - takers) : end]
            found[max(0, end - takers) : end] = random.sample(part, len(part))
        return found

    def _pause(self) -> float:
        """Seconds until the next look after an unsuccessful one: none for small folders, else increasing."""
        if self._entries < _SMALL_FOLDER:
            return 0.0
        most = min(_MOST_PAUSE, self._entries * _PAUSE_AN_ENTRY)
        return float(most * min(1.0, 0.25 * self._in_vain) * random.uniform(0.75, 1.25))

    def _take_over(self) -> Lease | None:
        leased = np.flatnonzero(self._universe & ~self._settled & (self._leased >= 0)).tolist()
        leased = [chunk for chunk in leased if chunk not in self._ours]
        for chunk in self._watched(leased):
            lease = self._lease(chunk, int(self._leased[chunk]))
            if self._watch.lost(lease):
                former = () if self._rules.deterministic else self.whole_samples(lease)
                if taken := self._try(chunk, lease.generation + 1, former, lease.suspects):
                    _log_takeover(lease)
                    return taken
        return None

    def _watched(self, leased: list[int]) -> list[int]:
        """The chunks of others that this rank checks, in random order, since many ranks look at the same time.

        All of them if they are few. Otherwise the idle ranks share them, several per chunk: always the same ones, since
        silence shows between two looks of one rank; and more with each unsuccessful look, so that none is forgotten.
        """
        idle = max(1, self._world_size - len(leased))
        share = (_WATCHERS + self._in_vain) / idle
        if len(leased) > _FEW_LEASED and share < 1:
            leased = [chunk for chunk in leased if _draw(self._rank, chunk) < share]
        return random.sample(leased, len(leased))

    def _try(
        self, chunk: int, generation: int, former: tuple[Former, ...], suspects: tuple[int, ...] = ()
    ) -> Lease | None:
        lease = replace(self._owner, chunk=chunk, generation=generation, former=former, suspects=suspects)
        self._leased[chunk] = max(generation, int(self._leased[chunk]))
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
        """The finished samples of a lost lease: those of earlier holders, and those in its holder's journal."""
        return whole_samples(lease, self._claims.folder.parent.parent / "ranks", set(self._chunks[lease.chunk]))


def _draw(rank: int, chunk: int) -> float:
    """A number from 0 to 1, always the same for this rank and chunk."""
    return int.from_bytes(hashlib.blake2b(f"{rank}.{chunk}".encode(), digest_size=4).digest(), "big") / 2**32
