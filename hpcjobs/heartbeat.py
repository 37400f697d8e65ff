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

from hpcjobs.files import FILE_MODE

log = logging.getLogger(__name__)
SIZE = 2048


@dataclass
class Vitals:
    """What a rank tells about itself; times in Unix seconds, counts since its start.

    state: starting, loading, working, waiting, draining, done or failed. `open` counts finished samples of
    chunks that are not done yet.
    """

    rank: int
    attempt: str
    host: str
    world_size: int
    identity: dict[str, Any]
    state: str = "starting"
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

    @property
    def name(self) -> str:
        return f"{self.attempt}-{self.rank}"


class Heartbeat:
    """Writes `vitals` every `interval` seconds until closed. Failing to write is said once and is not fatal."""

    def __init__(self, path: Path, vitals: Vitals, interval: float) -> None:
        self.vitals = vitals
        self._path, self._interval = path, interval
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
        self.vitals.ended_at = time.time()
        self.vitals.state = "failed" if kind else "done"
        if error and not self.vitals.first_error:
            self.vitals.first_error = f"{type(error).__name__}: {error}"[:400]
        self.beat()
        os.close(self._handle)

    def _beat_on(self) -> None:
        while not self._stop.wait(self._interval):
            self.beat()

    def enter(self, state: str) -> None:
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
    if len(text) >= SIZE:
        text = json.dumps(values | {"first_error": (values["first_error"] or "")[:80]}).encode()
    return text.ljust(SIZE - 1) + b"\n"


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
