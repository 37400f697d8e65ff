"""What all ranks do together in a program of the user's: each succeeds, or each raises.

A rank that raised alone would leave the others waiting in a collective.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hpcjobs.errors import HpcJobsError, RendezvousError, UsageError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

log = logging.getLogger(__name__)
# A rank may come hours after the others. One that has died or left is noticed at once, by its connection.
_LONGEST_WAIT = timedelta(days=1)
_NOTE_EVERY = timedelta(minutes=5)
# gloo sends at most 2 GiB at a time.
_PIECE = 1 << 28


@dataclass(frozen=True, kw_only=True)
class Said:
    """What one rank says before a joint step: its `failure`, or the number of rows and some of them by digest.

    `rows` is None for a stream. `size` is the number of bytes that the rank will send.
    """

    step: str
    rows: int | None = None
    samples: Mapping[int, str] = field(default_factory=dict)
    size: int = 0
    failure: str | None = None
    usage: bool = True

    @classmethod
    def failed(cls, step: str, error: Exception) -> Said:
        """The failure of a rank."""
        if isinstance(error, HpcJobsError):
            return cls(step=step, failure=str(error), usage=isinstance(error, UsageError))
        return cls(step=step, failure=f"{type(error).__name__}: {error}", usage=False)


class Peers:
    """All ranks, in a process group of their own on CPUs. Every rank makes it at the same point of the program."""

    def __init__(self, rank: int, world: int) -> None:
        import torch.distributed as dist

        self.rank, self.world = rank, world
        with _waiting("the first split_dataset or gather_results"):
            group: ProcessGroup = dist.new_group(backend="gloo", timeout=_LONGEST_WAIT)
        self._known = weakref.ref(group)  # torch holds it: `leave_group` could not close what is held here too

    @property
    def _group(self) -> ProcessGroup:
        if (group := self._known()) is None:
            raise RendezvousError("this rank has left the group of the others: leave_group comes after all of its work")
        return group

    def exchange(self, said: Said, error: Exception | None = None) -> list[Said]:
        """What all ranks say. Raises on every rank if one of them has failed, or is in another step.

        `error` is this rank's own failure, which it raises itself.
        """
        import torch.distributed as dist

        heard: list[Any] = [None] * self.world
        with _waiting(said.step):
            dist.all_gather_object(heard, said, group=self._group)
        if error is not None:
            raise error
        _check_step(heard)
        _check_failures(heard)
        return heard

    def gather(self, said: Sequence[Said], payload: bytes) -> list[bytes]:
        """The payloads of all ranks on rank 0; an empty list on the others. `said` has their sizes."""
        with _waiting(said[0].step):
            if self.rank:
                self._send(payload)
                return []
            return [payload, *(self._receive(rank, said[rank].size) for rank in range(1, self.world))]

    def _send(self, payload: bytes) -> None:
        import torch
        import torch.distributed as dist

        for start in range(0, len(payload), _PIECE):
            piece = torch.frombuffer(bytearray(payload[start : start + _PIECE]), dtype=torch.uint8)
            dist.send(piece, dst=0, group=self._group)

    def _receive(self, rank: int, size: int) -> bytes:
        import torch
        import torch.distributed as dist

        whole = torch.empty(size, dtype=torch.uint8)
        for start in range(0, size, _PIECE):
            dist.recv(whole[start : start + _PIECE], src=rank, group=self._group)
        return whole.numpy().tobytes()


@contextmanager
def _waiting(step: str) -> Iterator[None]:
    """While this rank waits for others: a line in the log now and then, and an error of ours if one has gone."""
    over = threading.Event()
    threading.Thread(target=_note, args=(step, over), daemon=True).start()
    try:
        yield
    except RuntimeError as error:  # torch's DistError and gloo's own
        raise RendezvousError(
            f"{step}: another rank has ended without it, or did not come within a day, and every rank calls it. The "
            f"log of that rank says why: {error}"
        ) from error
    finally:
        over.set()


def _note(step: str, over: threading.Event) -> None:
    waited = timedelta()
    while not over.wait(_NOTE_EVERY.total_seconds()):
        waited += _NOTE_EVERY
        log.warning("%s: waiting for the other ranks since %s", step, waited)


def _check_step(heard: Sequence[Said]) -> None:
    steps = [said.step for said in heard]
    if len(set(steps)) > 1:
        where = ", ".join(f"rank {rank} in {step}" for rank, step in enumerate(steps))
        raise UsageError(f"{where}: every rank calls both, in the same order, is_main_process or not")


def _check_failures(heard: Sequence[Said]) -> None:
    failed = [rank for rank, said in enumerate(heard) if said.failure is not None]
    if failed:
        first = heard[failed[0]]
        kind = UsageError if first.usage else HpcJobsError
        raise kind(f"rank {failed[0]} failed: {first.failure}")


def check_same_data(heard: Sequence[Said]) -> None:
    """Raise a UsageError unless all ranks have as many rows, and the same ones where they are compared."""
    rows = [said.rows for said in heard]
    if len(set(rows)) > 1:
        said = ", ".join(f"rank {rank} {'a stream' if count is None else count}" for rank, count in enumerate(rows))
        raise UsageError(f"{heard[0].step}: the ranks have different numbers of rows ({said}): {_SAME}")
    for rank, one in enumerate(heard):
        other = next((place for place, digest in one.samples.items() if heard[0].samples.get(place) != digest), None)
        if other is not None:
            raise UsageError(f"{heard[0].step}: row {other} of rank {rank} is not that of rank 0: {_SAME}")


_SAME = (
    "every rank passes the whole data set, in the same order. A shuffle needs the same seed on each, and a set "
    "sorted(...), since its order differs between processes"
)

