"""Checkpoints beside the steps: a copy of the state is written by a thread while the training goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from hpcjobs.engines.memory import host_memory
from hpcjobs.training.checkpoints.checkpoint import Checkpoints

if TYPE_CHECKING:
    from hpcjobs.training.checkpoints.state import StepState

log = logging.getLogger(__name__)
# Bytes a second, and least seconds, by which a first write is judged: hashed, synced and read back on a file system, by
# a machine, that are busy.
_SLOW, _LEAST = 100e6, 5.0
# The share of the free memory that the copy of a state may take where nobody has asked for one.
_SHARE = 0.5


class Saver:
    """Writes snapshots one after the other; only rank 0 has some.

    `background` (train.async_checkpoints): `auto` is yes where a `gpu` trains and memory has room for the copy. Where
    CPUs train, they share their cores with the writer: little is won for twice the memory (benchmarks/checkpoints.py).
    `seconds` is what the last write took; before the first what `expected` bytes would take on a slow disk, and not
    too little.
    """

    def __init__(
        self, checkpoints: Checkpoints, background: bool | Literal["auto"], gpu: bool, expected: int = 0
    ) -> None:
        self._checkpoints, self._background, self._gpu = checkpoints, background, gpu
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._began = 0.0
        self.seconds, self.written = max(_LEAST, expected / _SLOW), 0

    def begin(self, step: int, facts: Mapping[str, object], snapshot: StepState) -> None:
        """Write the snapshot of `step`, or begin to; the one before has been written when this begins."""
        self.settle()
        self._began = time.monotonic()
        if not self._beside(snapshot.size):
            self._write(step, facts, snapshot, "")
            return
        copy = snapshot.copy()
        held_up = time.monotonic() - self._began
        said = f", beside the training but for {held_up:.2f} s"
        self._thread = threading.Thread(target=self._try, args=(step, facts, copy, said), name="saver", daemon=True)
        self._thread.start()

    def settle(self) -> None:
        """Wait for what is being written; its error is raised here, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Raise the error of a write beside the training, once."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    @property
    def busy(self) -> bool:
        """Whether something is being written beside the training."""
        return self._thread is not None and self._thread.is_alive()

    def left(self) -> float:
        """Seconds that the write in hand is expected to take yet."""
        if not self.busy:
            return 0.0
        return max(0.0, self.seconds - (time.monotonic() - self._began))

    def _beside(self, size: int) -> bool:
        if self._background == "auto":
            return self._gpu and size <= host_memory() * _SHARE
        return self._background

    def _try(self, step: int, facts: Mapping[str, object], snapshot: StepState, said: str) -> None:
        try:
            self._write(step, facts, snapshot, said)
        except BaseException as error:
            self._error = error

    def _write(self, step: int, facts: Mapping[str, object], snapshot: StepState, said: str) -> None:
        self._checkpoints.write(step, facts, snapshot.write)
        self.seconds, self.written = time.monotonic() - self._began, step
        log.info("checkpoint of step %d in %.1f s%s", step, self.seconds, said)
