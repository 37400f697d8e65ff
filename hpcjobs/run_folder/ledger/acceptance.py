"""Which journal records are accepted: the one rule that merge, resume and status share."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcjobs.run_folder.journal.record import Record
from hpcjobs.run_folder.ledger.chunks import ChunkList, runs_again
from hpcjobs.run_folder.ledger.claims import Claims, Counted, EmptyClaimError, Listing
from hpcjobs.run_folder.paths import RunPaths

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
# Claim files read at a time: on a network file system each costs a round trip.
_READERS = 16
# A round with fewer than one row in this many keeps a sorted list instead of a number per row.
_SPARSE = 16


class Acceptance:
    """Which records of a round are accepted: those named by a chunk's `.closed`, else by its `.done`, else by its
    highest lease.

    The last case is provisional, for unfinished chunks: it becomes final when a resume closes the round. No record
    counts of a sample that a later round runs again (`superseded_by`).
    """

    def __init__(self, paths: RunPaths, number: int, rows: int) -> None:
        claims, self.chunks = Claims(paths.round(number)), ChunkList.read(paths.chunks(number))
        listing, self._claims = claims.list(), claims
        self.unfinished = set(range(len(self.chunks))) - (listing.done - listing.closed)
        self._verdicts = _read_verdicts(claims, listing)
        self._formers = {
            (chunk, index): former
            for chunk, verdict in self._verdicts.items()
            for former in verdict.former
            for index in former.indexes
        }
        self._members, self._rows = _Members(self.chunks, rows), rows
        self._superseded: Mask | None = None
        self._names = {name: code for code, name in enumerate(self.journals())}
        self._journal = np.full(len(self.chunks), -1, np.int64)
        self._generation = np.zeros(len(self.chunks), np.int64)
        self._split = np.zeros(len(self.chunks), np.bool_)
        for chunk, verdict in self._verdicts.items():
            if chunk < len(self.chunks):
                self._journal[chunk] = self._names.get(verdict.journal or "", -1)
                self._generation[chunk], self._split[chunk] = verdict.generation, bool(verdict.former)

    def superseded_by(self, later: ChunkList) -> None:
        """Let no record count of the samples of `later`, which a later round runs again."""
        if self._superseded is None:
            self._superseded = np.zeros(self._rows, np.bool_)
        self._superseded[later.indexes] = True

    def journals(self) -> list[str]:
        """The names of the journals that have accepted records."""
        names = {verdict.journal for verdict in self._verdicts.values() if verdict.journal}
        return sorted(names | {former.journal for former in self._formers.values()})

    def accepts(self, journal: str, record: Record) -> bool:
        """Whether this record of this journal is the accepted one of its sample in this round."""
        one = (np.array([value], np.int64) for value in (record.index, record.chunk, record.generation))
        return bool(self.counting(journal, *one).item())

    def counting(self, journal: str, index: Ints, chunk: Ints, generation: Ints) -> Mask:
        """The mask of a journal's records that are accepted in this round. Arguments are arrays of equal length."""
        if journal not in self._names or not len(self.chunks):
            return np.zeros(len(chunk), np.bool_)
        there = (chunk >= 0) & (chunk < len(self.chunks))
        chunk = chunk * there
        there &= self._members.chunks_of(index) == chunk
        if self._superseded is not None:
            there &= ~self._superseded[index * there]
        ours = self._journal[chunk] == self._names[journal]
        counts: Mask = there & ours & (self._generation[chunk] == generation)
        for place in np.flatnonzero(there & self._split[chunk]):
            if former := self._formers.get((int(chunk[place]), int(index[place]))):
                counts[place] = (former.journal, former.generation) == (journal, generation[place])
        return counts

    def chunk_of(self, index: int) -> int | None:
        """The chunk of a sample, None if the sample is not in this round."""
        chunk = int(self._members.chunks_of(np.array([index])).item())
        return chunk if chunk >= 0 else None

    def holder(self, chunk: int, index: int) -> str | None:
        """The journal of the rank that held a sample; None if nobody ever started its chunk."""
        if former := self._formers.get((chunk, index)):
            return former.journal
        verdict = self._verdicts.get(chunk)
        return (verdict.journal or self._last_holder(verdict)) if verdict else None

    def _last_holder(self, closed: Counted) -> str | None:
        """The journal that held a chunk before it was closed; a closer has no journal."""
        for generation in range(closed.generation, -1, -1):
            if journal := self._claims.read_lease(closed.chunk, generation).journal:
                return journal
        return None


def read_rounds(paths: RunPaths, rows: int) -> list[Acceptance]:
    """The rounds of a run, oldest first. Where a round runs samples again, its records of them replace earlier ones."""
    numbers = paths.rounds()
    rounds = [Acceptance(paths, number, rows) for number in numbers]
    for place, (number, later) in enumerate(zip(numbers, rounds, strict=True)):
        if place and runs_again(paths.chunks(number)):
            for earlier in rounds[:place]:
                earlier.superseded_by(later.chunks)
    return rounds


class _Members:
    """The chunk of each sample of a round."""

    def __init__(self, chunks: ChunkList, rows: int) -> None:
        indexes = chunks.indexes
        self._sorted: npt.NDArray[np.integer[Any]] | None = None
        if len(indexes) * _SPARSE < rows:
            numbers, order = np.repeat(np.arange(len(chunks), dtype=np.int32), chunks.sizes()), np.argsort(indexes)
            self._sorted, self._chunk = indexes[order], numbers[order]
            return
        self._chunk = np.full(rows, -1, np.int32)
        for chunk, (start, stop) in enumerate(pairwise(chunks.starts)):
            self._chunk[indexes[start:stop]] = chunk

    def chunks_of(self, index: Ints) -> npt.NDArray[np.int32]:
        """The chunk of each of `index`, -1 for those that are not of this round."""
        if not len(self._chunk):
            return np.full(len(index), -1, np.int32)
        if self._sorted is None:
            there = (index >= 0) & (index < len(self._chunk))
            place = index * there
        else:
            place = np.searchsorted(self._sorted, index).clip(max=len(self._sorted) - 1)
            there = self._sorted[place] == index
        return np.where(there, self._chunk[place], np.int32(-1))


def _read_verdicts(claims: Claims, listing: Listing) -> dict[int, Counted]:
    def read(part: Sequence[int]) -> list[Counted]:
        return [_verdict(claims, chunk, listing) for chunk in part]

    chunks = sorted(listing.leased)
    with ThreadPoolExecutor(_READERS) as pool:  # a share each: a task a file would cost more than the file
        parts = pool.map(read, (chunks[start::_READERS] for start in range(_READERS)))
        return {verdict.chunk: verdict for part in parts for verdict in part}


def _verdict(claims: Claims, chunk: int, listing: Listing) -> Counted:
    for kind, settled in (("closed", listing.closed), ("done", listing.done)):
        if chunk in settled:
            with contextlib.suppress(EmptyClaimError):  # then what its holders' journals have
                return claims.read_verdict(chunk, kind)
    lease = claims.read_lease(chunk, listing.leased[chunk])
    return Counted(chunk, lease.journal or None, lease.generation, lease.former)


def unnamed_journals(paths: RunPaths, named: set[str]) -> list[Path]:
    """Journals in `ranks/` that have records, none of them accepted: copies, foreign files, or chunks all taken over.
    """
    return [path for path in paths.journals() if path.name not in named and path.stat().st_size]
