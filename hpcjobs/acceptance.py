"""Which journal records count: the one rule that merge, resume and status share."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcjobs.chunks import ChunkList
from hpcjobs.claims import Claims, EmptyClaimError, Verdict
from hpcjobs.paths import RunPaths
from hpcjobs.records import Record


class Acceptance:
    """What counts of one round: a chunk's closing first, then its first `.done`, else its highest lease.

    The last case is provisional (the chunk is unfinished): what its holders' journals have is shown, and
    fixed when a resume closes the round.
    """

    def __init__(self, paths: RunPaths, number: int, rows: int) -> None:
        claims, self.chunks = Claims(paths.round(number)), ChunkList.read(paths.chunks(number))
        listing, self._claims = claims.list(), claims
        self.unfinished = set(range(len(self.chunks))) - (listing.done - listing.closed)
        self._verdicts: dict[int, Verdict] = {}
        for chunk, generation in listing.leased.items():
            self._verdicts[chunk] = _verdict(claims, chunk, generation, listing.closed, listing.done)
        self._formers = {
            (chunk, index): former
            for chunk, verdict in self._verdicts.items()
            for former in verdict.former
            for index in former.indexes
        }
        self._chunk_of: npt.NDArray[np.int32] = np.full(rows, -1, np.int32)
        for chunk in range(len(self.chunks)):
            self._chunk_of[self.chunks[chunk]] = chunk

    def journals(self) -> list[str]:
        """The journals that something is accepted from."""
        names = {verdict.journal for verdict in self._verdicts.values() if verdict.journal}
        return sorted(names | {former.journal for former in self._formers.values()})

    def accepts(self, journal: str, record: Record) -> bool:
        """Whether this record, in this journal, is what counts for its sample in this round."""
        verdict = self._verdicts.get(record.chunk)
        if verdict is None or not 0 <= record.index < len(self._chunk_of):
            return False
        if self._chunk_of[record.index] != record.chunk:
            return False
        named = self._formers.get((record.chunk, record.index)) or verdict
        return named.journal == journal and named.generation == record.generation

    def chunk_of(self, index: int) -> int | None:
        """The chunk of a sample in this round, None where it is not part of it."""
        chunk = int(self._chunk_of[index])
        return chunk if chunk >= 0 else None

    def holder(self, chunk: int, index: int) -> str | None:
        """The journal that was to hold a sample; None where nobody ever started its chunk."""
        if former := self._formers.get((chunk, index)):
            return former.journal
        verdict = self._verdicts.get(chunk)
        return (verdict.journal or self._last_holder(verdict)) if verdict else None

    def _last_holder(self, closed: Verdict) -> str | None:
        """Who held a chunk before its closing: a closer has no journal."""
        for generation in range(closed.generation, -1, -1):
            if journal := self._claims.read_lease(closed.chunk, generation).journal:
                return journal
        return None


def _verdict(claims: Claims, chunk: int, generation: int, closed: set[int], done: set[int]) -> Verdict:
    for kind, settled in (("closed", closed), ("done", done)):
        if chunk in settled:
            with contextlib.suppress(EmptyClaimError):  # then what its holders' journals have
                return claims.read_verdict(chunk, kind)
    lease = claims.read_lease(chunk, generation)
    return Verdict(chunk, lease.journal or None, lease.generation, lease.former)


def unnamed_journals(paths: RunPaths, named: set[str]) -> list[Path]:
    """Journals in `ranks/` with records of which none is accepted: copies, strangers, or all taken over."""
    return [path for path in paths.journals() if path.name not in named and path.stat().st_size]
