"""The interface of trackers, and masking of secrets."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Sequence
from typing import Protocol

from hpcjobs.errors import ConfigError
from hpcjobs.training.steps import StepRecord

_SECRET_NAME = re.compile(r"KEY|TOKEN|PASSWORD|SECRET", re.IGNORECASE)
_LOGIN = re.compile(r"//[^/@\s]+@")


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
    return masked(f"{type(error).__name__}: {error}")[:600]


def masked(text: str) -> str:
    """`text` on one line, without secrets from the environment and without logins in URLs."""
    for name, value in os.environ.items():
        if len(value) > 3 and _SECRET_NAME.search(name):
            text = text.replace(value, "***")
    return _LOGIN.sub("//***@", " ".join(text.split()))
