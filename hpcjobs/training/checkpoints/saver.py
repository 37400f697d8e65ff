"""Asynchronous checkpoints: a thread writes a copy of the state while training goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from hpcjobs.engines.batch_rows import host_memory
from hpcjobs.training.checkpoints.checkpoint import Checkpoints

if TYPE_CHECKING:
    from hpcjobs.training.checkpoints.state import StepState

log = logging.getLogger(__name__)
# Bytes per second, and a minimum in seconds, to estimate the first write: hashing, syncing and reading back on a busy
# machine and file system.
_SLOW, _LEAST = 100e6, 5.0
# The share of free memory that the copy of a state may use with `auto`.
_SHARE = 0.5


class CheckpointSaver:
    """Writes checkpoints one after the other, on rank 0.

    `background` is `train.async_checkpoints`: `auto` means yes when training on a GPU and the copy fits into memory. On
    CPUs training shares its cores with the writer, so little is won for twice the memory (benchmarks/checkpoints.py).
    `seconds` is how long the last write took; before the first one an estimate for `expected` bytes on a slow disk.
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
        """Write the state of `step`, or start to. Waits for the previous write first."""
        self.settle()
        self._began = time.monotonic()
        if not self._beside(snapshot.size):
            self._write(step, facts, snapshot, "")
            return
        copy = snapshot.copy()
        paused = time.monotonic() - self._began
        note = f", beside the training but for {paused:.2f} s"
        self._thread = threading.Thread(target=self._try, args=(step, facts, copy, note), name="saver", daemon=True)
        self._thread.start()

    def settle(self) -> None:
        """Wait for the current write. Raises its error, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Raise the error of a background write, once."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    @property
    def busy(self) -> bool:
        """Whether a background write is running."""
        return self._thread is not None and self._thread.is_alive()

    def left(self) -> float:
        """Estimated seconds until the current write is finished."""
        if not self.busy:
            return 0.0
        return max(0.0, self.seconds - (time.monotonic() - self._began))

    def _beside(self, size: int) -> bool:
        if self._background == "auto":
            return self._gpu and size <= host_memory() * _SHARE
        return self._background

    def _try(self, step: int, facts: Mapping[str, object], snapshot: StepState, note: str) -> None:
        try:
            self._write(step, facts, snapshot, note)
        except BaseException as error:
            self._error = error

    def _write(self, step: int, facts: Mapping[str, object], snapshot: StepState, note: str) -> None:
        self._checkpoints.write(step, facts, snapshot.write)
        self.seconds, self.written = time.monotonic() - self._began, step
        log.info("checkpoint of step %d in %.1f s%s", step, self.seconds, note)
