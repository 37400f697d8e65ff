"""Heartbeats: one small file of fixed size per rank, overwritten in place by its owner.

A watcher only checks whether the bytes have changed, by its own clock; `status` reads the content.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from hpcjobs.masking import masked
from hpcjobs.run_folder.disk import disk_errors
from hpcjobs.run_folder.files import open_file
from hpcjobs.run_folder.rank_state import RankState

log = logging.getLogger(__name__)
SIZE = 2048


@dataclass(kw_only=True)
class Vitals:
    """The content of a heartbeat: times in Unix seconds, counts since the rank started.

    `open` counts finished samples of chunks that are not done yet. `ended` is why the rank ended early, `signal` the
    signal that killed it; `fatal` means that a restart would fail the same way. `index` is that of its copy of a
    program in an array.
    """

    rank: int
    attempt: str
    host: str
    world_size: int
    identity: dict[str, Any]
    state: RankState = RankState.STARTING
    started_at: float = field(default_factory=time.time)
    ready_at: float | None = None
    ended_at: float | None = None
    device: str | None = None
    gpu: str | None = None
    samples: int = 0
    errors: int = 0
    metric_errors: int = 0
    chunks: int = 0
    open: int = 0
    tokens: int = 0
    last_index: int | None = None
    first_error: str | None = None
    beat: int = 0
    beat_at: float = 0.0
    ended: str | None = None
    signal: str | None = None
    fatal: bool = False
    index: int | None = None

    def __post_init__(self) -> None:
        self.state = RankState(self.state)

    def end(self, state: RankState, why: str | None = None) -> None:
        """Set the final state, with the time and the reason."""
        self.state, self.ended_at, self.ended = state, time.time(), self.ended or why

    @property
    def name(self) -> str:
        """`<attempt>-<rank>`, as in file names."""
        return f"{self.attempt}-{self.rank}"


class Heartbeat:
    """Writes `vitals` every `interval` seconds until closed. A failed write is logged once and is not fatal.

    `flags` are for open(2): with O_DSYNC a write is on the server when it is done, and not half a minute later.
    """

    def __init__(self, path: Path, vitals: Vitals, interval: float, flags: int = 0) -> None:
        self.vitals, self.interval = vitals, interval
        self._path = path
        with disk_errors(path, SIZE):
            self._handle = open_file(path, os.O_WRONLY | flags)
        self._stop, self._lock, self._complained = threading.Event(), threading.Lock(), False
        self._thread = threading.Thread(target=self._write_periodically, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self.write()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        drained = isinstance(error, SystemExit) if error else self.vitals.state == RankState.DRAINING
        if error and not drained:
            self.vitals.fatal = bool(getattr(error, "fatal", False))
            if self.vitals.fatal or not self.vitals.first_error:  # what ended all outweighs what a sample met
                self.vitals.first_error = f"{type(error).__name__}: {error}".removesuffix(": ")[:400]
        end = RankState.DRAINED if drained else RankState.FAILED if kind else RankState.DONE
        self.vitals.end(end, str(error) if error else None)
        self.write()
        os.close(self._handle)

    def end_now(self, state: RankState, why: str) -> None:
        """Write the final state from another thread, right before the process ends."""
        self._stop.set()
        self.vitals.end(state, why)
        self.write()

    def _write_periodically(self) -> None:
        while not self._stop.wait(self.interval):
            self.write()

    def enter(self, state: RankState) -> None:
        """Change the state and write it at once."""
        self.vitals.state = state
        self.write()

    def write(self) -> None:
        """Write the vitals now."""
        with self._lock:
            self.vitals.beat += 1
            self.vitals.beat_at = time.time()
            try:
                os.pwrite(self._handle, _padded(asdict(self.vitals)), 0)
            except OSError as error:
                if not self._complained:
                    log.error("heartbeat %s cannot be written: %s", self._path, error)
                self._complained = True


def _padded(values: dict[str, Any]) -> bytes:
    values |= {name: values[name] and masked(values[name]) for name in ("first_error", "ended")}
    text = json.dumps(values).encode()
    for most in (80, 20):  # a character may be twelve bytes
        if len(text) >= SIZE:
            short = {"first_error": (values["first_error"] or "")[:80], "ended": (values["ended"] or "")[:most]}
            text = json.dumps(values | short).encode()
    return text.ljust(SIZE - 1) + b"\n"


def write_heartbeat(path: Path, vitals: Vitals) -> None:
    """Overwrite the heartbeat of a dead rank."""
    handle = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(handle, _padded(asdict(vitals)), 0)
    finally:
        os.close(handle)


def read_heartbeat(path: Path) -> Vitals | None:
    """The vitals in a heartbeat file; None if it does not exist or was read while being written."""
    for _ in range(3):
        with contextlib.suppress(OSError, ValueError, TypeError):
            return Vitals(**json.loads(path.read_bytes()))
    return None


def read_heartbeats(folder: Path) -> list[Vitals]:
    """The vitals of all ranks, ordered by the start of their attempt, then by rank."""
    found = [read_heartbeat(path) for path in sorted(folder.glob("*.json"))] if folder.is_dir() else []
    return sorted((vitals for vitals in found if vitals), key=lambda v: (v.started_at // 60, v.attempt, v.rank))
