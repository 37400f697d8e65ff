"""The files of the ledger: who holds which chunk, and which of its samples count.

Files here are only ever created, whole, by one creator; never renamed, overwritten or removed. So each change has
exactly one author, on any shared file system, without locks.
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
from hpcjobs.run_folder.files import create_once, name_once
from hpcjobs.run_folder.process import Identity

_VISIBLE_SECONDS = 5.0


@dataclass(frozen=True)
class Former:
    """Samples of a chunk that an earlier holder had finished, in its journal. These of that journal count, and no
    others.
    """

    journal: str
    generation: int
    indexes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A lease on a chunk. Of a chunk's leases the one with the highest generation holds it.

    A lease with `released` (the reason) gives the chunk back: the next rank need not wait for the lease to time out.
    `suspects` are samples that were running when a rank hung or died, once for each time.
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
        """Samples that are finished already and need not be run again."""
        return {index for former in self.former for index in former.indexes}


@dataclass(frozen=True)
class Counted:
    """Which samples of a chunk count: all in `journal` at `generation`, except those listed in `former`.

    A closed chunk has no `journal`: only its `former` samples count.
    """

    chunk: int
    journal: str | None
    generation: int
    former: tuple[Former, ...]


@dataclass
class Listing:
    """The content of a claims folder: the highest generation of each leased chunk, and the chunks that are done or
    closed.
    """

    leased: dict[int, int]
    done: set[int]
    closed: set[int]

    @property
    def settled(self) -> set[int]:
        """The chunks that are done or closed."""
        return self.done | self.closed


class Claims:
    """The claims folder of one round."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._own: dict[int, Lease] = {}

    def list(self) -> Listing:
        """List the folder once."""
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
        """`(highest generation or -1, whether the chunk is settled)`, without listing the whole folder."""
        generation = 0
        while (self.folder / f"{chunk}.{generation}").exists():
            generation += 1
        settled = any((self.folder / f"{chunk}.{kind}").exists() for kind in ("done", "closed"))
        return generation - 1, settled

    def is_leased(self, chunk: int) -> bool:
        """Whether the chunk was ever leased. Cheaper than trying to create a lease, which writes a file first."""
        return (self.folder / f"{chunk}.0").exists()

    def lease(self, lease: Lease) -> bool:
        """Create a lease; False if another rank was first."""
        created = create_once(self.folder / f"{lease.chunk}.{lease.generation}", _text(asdict(lease)))
        if created:
            self._own[lease.chunk] = lease
        return created

    def done(self, lease: Lease) -> bool:
        """Mark the chunk as done: every sample is in a journal. False if it was marked before.

        The file of a lease that was created here says already what counts: then `.done` is a second name of it.
        """
        text = _text(asdict(Counted(lease.chunk, lease.journal, lease.generation, lease.former)))
        held, done = (self.folder / f"{lease.chunk}.{kind}" for kind in (lease.generation, "done"))
        if self._own.pop(lease.chunk, None) == lease:
            return name_once(held, done, text)
        return create_once(done, text)

    def close(self, lease: Lease) -> bool:
        """Fix which samples of an unfinished chunk count, so that a late writer cannot change it."""
        verdict = Counted(lease.chunk, None, lease.generation, lease.former)
        return create_once(self.folder / f"{lease.chunk}.closed", _text(asdict(verdict)))

    def read_lease(self, chunk: int, generation: int) -> Lease:
        """The lease of a chunk at a generation. An empty file gives a lease without an owner, which counts as lost."""
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
        """The content of `<chunk>.done` or `<chunk>.closed`."""
        values = self._read(f"{chunk}.{kind}")
        return Counted(values["chunk"], values["journal"], values["generation"], _formers(values["former"]))

    def _is_empty(self, name: str) -> bool:
        path = self.folder / name
        return path.exists() and path.stat().st_size == 0

    def _read(self, name: str) -> dict[str, Any]:
        """The content of a claim file. Without hard links it may be visible before it is whole: wait, with a deadline.
        """
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
    """An empty claim file: its creator died between creating and writing it, possible only without hard links."""


def _text(values: dict[str, object]) -> str:
    return json.dumps(values, separators=(",", ":"))


def _formers(values: Sequence[dict[str, Any]]) -> tuple[Former, ...]:
    return tuple(Former(v["journal"], v["generation"], tuple(v["indexes"])) for v in values)
