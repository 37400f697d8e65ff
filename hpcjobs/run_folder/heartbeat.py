"""Heartbeats: one small file a rank, of fixed size, overwritten in place by its one owner.

A watcher asks only whether the bytes have changed, by its own clock; `status` reads what they say.
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

from hpcjobs.run_folder.disk import disk_errors
from hpcjobs.run_folder.files import FILE_MODE
from hpcjobs.run_folder.rank_state import RankState

log = logging.getLogger(__name__)
SIZE = 2048


@dataclass(kw_only=True)
class Vitals:
    """What a rank tells about itself; times in Unix seconds, counts since its start.

    `open` counts finished samples of chunks that are not done yet. `ended` says why it ended early, `signal` what
    killed it, `fatal` that another start would end the same way.
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

    def __post_init__(self) -> None:
        self.state = RankState(self.state)

    def end(self, state: RankState, why: str | None = None) -> None:
        """This rank has ended, now."""
        self.state, self.ended_at, self.ended = state, time.time(), self.ended or why

    @property
    def name(self) -> str:
        return f"{self.attempt}-{self.rank}"


class Heartbeat:
    """Writes `vitals` every `interval` seconds until closed. Failing to write is said once and is not fatal."""

    def __init__(self, path: Path, vitals: Vitals, interval: float) -> None:
        self.vitals = vitals
        self._path, self._interval = path, interval
        with disk_errors(path, SIZE):
            self._handle = os.open(path, os.O_WRONLY | os.O_CREAT, FILE_MODE)
        self._stop, self._lock, self._complained = threading.Event(), threading.Lock(), False
        self._thread = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self.beat()
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
                self.vitals.first_error = f"{type(error).__name__}: {error}"[:400]
        end = RankState.DRAINED if drained else RankState.FAILED if kind else RankState.DONE
        self.vitals.end(end, str(error) if error else None)
        self.beat()
        os.close(self._handle)

    def last_words(self, state: RankState, why: str) -> None:
        """The end, told from another thread: the process ends right after it."""
        self._stop.set()
        self.vitals.end(state, why)
        self.beat()

    def _beat_on(self) -> None:
        while not self._stop.wait(self._interval):
            self.beat()

    def enter(self, state: RankState) -> None:
        """Change the state and tell it at once."""
        self.vitals.state = state
        self.beat()

    def beat(self) -> None:
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
    text = json.dumps(values).encode()
    for most in (80, 20):  # a character may be twelve bytes
        if len(text) >= SIZE:
            short = {"first_error": (values["first_error"] or "")[:80], "ended": (values["ended"] or "")[:most]}
            text = json.dumps(values | short).encode()
    return text.ljust(SIZE - 1) + b"\n"


def write_heartbeat(path: Path, vitals: Vitals) -> None:
    """Overwrite a heartbeat whose owner is dead."""
    handle = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(handle, _padded(asdict(vitals)), 0)
    finally:
        os.close(handle)


def read_heartbeat(path: Path) -> Vitals | None:
    """The vitals in a heartbeat file; None where it is not there or was caught half written."""
    for _ in range(3):
        with contextlib.suppress(OSError, ValueError, TypeError):
            return Vitals(**json.loads(path.read_bytes()))
    return None


def read_heartbeats(folder: Path) -> list[Vitals]:
    """All ranks' vitals, by start of their attempt and rank."""
    found = [read_heartbeat(path) for path in sorted(folder.glob("*.json"))] if folder.is_dir() else []
    return sorted((vitals for vitals in found if vitals), key=lambda v: (v.started_at // 60, v.attempt, v.rank))
