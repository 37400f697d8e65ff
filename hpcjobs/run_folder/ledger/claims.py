"""The files of the ledger: who holds which chunk, and what of it counts.

Files here are only ever created, whole, by one creator; never renamed, overwritten or removed. So each
change has exactly one author on any shared file system, without locks (design: 'Sharding: the ledger').
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpcjobs.errors import MergeError
from hpcjobs.run_folder.files import create_once
from hpcjobs.run_folder.process import Identity

_VISIBLE_SECONDS = 5.0


@dataclass(frozen=True)
class Former:
    """Samples of a chunk that were already whole in an earlier holder's journal: these count, and only these."""

    journal: str
    generation: int
    indexes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Lease:
    """Generation `generation` of a chunk's holders; the highest one holds it.

    One that is `released` (it says why) is held by nobody: its creator gave the chunk back, and the next taker
    need not wait for a time-out. `suspects` are samples that were in hand when a rank hung or died, one entry
    for each time.
    """

    chunk: int
    generation: int
    attempt: str
    rank: int
    host: str
    journal: str
    identity: Identity
    former: tuple[Former, ...] = ()
    released: str = ""
    suspects: tuple[int, ...] = ()

    @property
    def counted(self) -> set[int]:
        """Samples that need not be run again."""
        return {index for former in self.former for index in former.indexes}


@dataclass(frozen=True)
class Counted:
    """What of a chunk counts: all of it in `journal` at `generation`, apart from what `former` names.

    A closed chunk has no `journal`: only its `former` samples count.
    """

    chunk: int
    journal: str | None
    generation: int
    former: tuple[Former, ...]


@dataclass
class Listing:
    """What a look into the folder showed: highest generation of each leased chunk, and the settled ones."""

    leased: dict[int, int]
    done: set[int]
    closed: set[int]

    @property
    def settled(self) -> set[int]:
        return self.done | self.closed


class Claims:
    """One round's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def list(self) -> Listing:
        """Read the folder once."""
        listing = Listing({}, set(), set())
        for entry in os.scandir(self.folder):
            chunk, _, kind = entry.name.partition(".")
            if not chunk.isdigit():
                continue
            if kind == "done":
                listing.done.add(int(chunk))
            elif kind == "closed":
                listing.closed.add(int(chunk))
            elif kind.isdigit():
                listing.leased[int(chunk)] = max(int(kind), listing.leased.get(int(chunk), -1))
        return listing

    def kinds(self, chunk: int) -> tuple[int, bool]:
        """(highest generation or -1, whether the chunk is settled), asking for this chunk's files alone."""
        generation = 0
        while (self.folder / f"{chunk}.{generation}").exists():
            generation += 1
        settled = any((self.folder / f"{chunk}.{kind}").exists() for kind in ("done", "closed"))
        return generation - 1, settled

    def is_leased(self, chunk: int) -> bool:
        """Whether somebody has ever held a chunk: one question, where an attempt to create writes a file first."""
        return (self.folder / f"{chunk}.0").exists()

    def lease(self, lease: Lease) -> bool:
        """Create a lease; False where somebody else was first."""
        return create_once(self.folder / f"{lease.chunk}.{lease.generation}", _text(asdict(lease)))

    def done(self, lease: Lease) -> bool:
        """Say that every sample of the chunk is in a journal; False where somebody has said so before."""
        verdict = Counted(lease.chunk, lease.journal, lease.generation, lease.former)
        return create_once(self.folder / f"{lease.chunk}.done", _text(asdict(verdict)))

    def close(self, lease: Lease) -> bool:
        """Fix what counts of an unfinished chunk, so that no late writer can change it."""
        verdict = Counted(lease.chunk, None, lease.generation, lease.former)
        return create_once(self.folder / f"{lease.chunk}.closed", _text(asdict(verdict)))

    def read_lease(self, chunk: int, generation: int) -> Lease:
        """A lease; an empty one is nobody's, to be lost like that of a rank that never beats."""
        try:
            values = self._read(f"{chunk}.{generation}")
        except EmptyClaimError:
            return Lease(
                chunk=chunk,
                generation=generation,
                attempt="nobody",
                rank=0,
                host="nowhere",
                journal="",
                identity=Identity("", 0, ""),
            )
        identity = Identity(**values.pop("identity"))
        tuples = {"former": _formers(values["former"]), "suspects": tuple(values.get("suspects", ()))}
        return Lease(**values | tuples | {"identity": identity})

    def read_verdict(self, chunk: int, kind: str) -> Counted:
        """The verdict in `<chunk>.done` or `<chunk>.closed`."""
        values = self._read(f"{chunk}.{kind}")
        return Counted(**values | {"former": _formers(values["former"])})

    def _is_empty(self, name: str) -> bool:
        path = self.folder / name
        return path.exists() and path.stat().st_size == 0

    def _read(self, name: str) -> dict[str, Any]:
        """A claim file; where links are missing it may be seen before it is whole: wait, with a deadline."""
        deadline = time.monotonic() + _VISIBLE_SECONDS
        while True:
            try:
                values: dict[str, Any] = json.loads((self.folder / name).read_bytes())
                return values
            except (ValueError, FileNotFoundError) as error:
                if time.monotonic() > deadline:
                    if self._is_empty(name):
                        raise EmptyClaimError(f"{self.folder / name} is empty") from None
                    raise MergeError(f"{self.folder / name}: broken claim file: {error}") from None
            time.sleep(0.05)


class EmptyClaimError(MergeError):
    """A claim whose creator died between creating and writing it: possible only where there are no hard links."""


def _text(values: dict[str, object]) -> str:
    return json.dumps(values, separators=(",", ":"))


def _formers(values: Sequence[dict[str, Any]]) -> tuple[Former, ...]:
    return tuple(Former(v["journal"], v["generation"], tuple(v["indexes"])) for v in values)
