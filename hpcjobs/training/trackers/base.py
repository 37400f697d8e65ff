"""The interface of trackers, and their errors."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Protocol

from hpcjobs.errors import ConfigError
from hpcjobs.masking import masked
from hpcjobs.training.steps import StepRecord


class Tracker(Protocol):
    """One tracking library. All calls come from one thread, in this order, and may raise anything."""

    def start(self) -> None:
        """Start a tracked run, or continue that of an earlier start."""

    def log_steps(self, records: Sequence[StepRecord]) -> None:
        """Log steps, in order; those already logged are skipped."""

    def finish(self, complete: bool) -> None:
        """End the tracked run. If not `complete`, a later start continues it."""


def check_trackers(names: Sequence[str]) -> None:
    """Raise a ConfigError that says what to install if a tracker is missing. Nothing is imported."""
    missing = [name for name in names if not _is_there(name)]
    if missing:
        raise ConfigError(
            f"train.trackers: {', '.join(missing)} cannot be imported; next: pip install {' '.join(missing)}"
        )


def _is_there(name: str) -> bool:
    """Whether it is installed. A plain folder of that name, such as wandb's output folder, has no origin."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


def error_message(error: BaseException) -> str:
    """An error of a library for the log, with secrets masked."""
    return masked(" ".join(f"{type(error).__name__}: {error}".split()))[:600]
