"""What a tracker is, and what none of them is told."""

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
    """One library. All is called from one thread, in this order; anything may be raised."""

    def start(self) -> None:
        """Begin, or go on with what an earlier start of this run began."""

    def log_steps(self, records: Sequence[StepRecord]) -> None:
        """Steps in order; those that it has already it passes over."""

    def finish(self, complete: bool) -> None:
        """All was told: the run is complete, or goes on at its next start."""


def check_trackers(names: Sequence[str]) -> None:
    """A ConfigError that says what to install where a tracker is not there. Nothing is imported."""
    missing = [name for name in names if not _is_there(name)]
    if missing:
        raise ConfigError(
            f"train.trackers: {', '.join(missing)} cannot be imported; next: pip install {' '.join(missing)}"
        )


def _is_there(name: str) -> bool:
    """Whether it is installed; a plain folder of that name, as wandb leaves one where it runs, has no origin."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


def error_message(error: BaseException) -> str:
    """What to write into a log of what a library has raised."""
    return masked(f"{type(error).__name__}: {error}")[:600]


def masked(text: str) -> str:
    """`text` on one line without what the environment keeps secret, and without logins in addresses."""
    for name, value in os.environ.items():
        if len(value) > 3 and _SECRET_NAME.search(name):
            text = text.replace(value, "***")
    return _LOGIN.sub("//***@", " ".join(text.split()))
