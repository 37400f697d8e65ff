"""The errors of hpcjobs and their exit codes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class HpcJobsError(Exception):
    """Base of all errors that are shown to the user without a traceback.

    `exit_code` is the exit code of the process. A `fatal` error would happen again: restarting cannot help.
    """

    exit_code = 1
    fatal = False


class UsageError(HpcJobsError):
    """Wrong flags, names or values. Nothing was queued or written."""

    exit_code = 2


class ConfigError(UsageError):
    """The config is not valid. The message names file, line and key."""


class DataError(UsageError):
    """The data set cannot be read or used. The message names the row."""


class NewerPlanError(HpcJobsError):
    """A run was planned by a later version of hpcjobs, which this one cannot read. The message names that version."""

    fatal = True


class LaunchError(HpcJobsError):
    """Slurm or the local launcher refused the job or failed."""


class RendezvousError(HpcJobsError):
    """The ranks did not find each other before the deadline, or disagree about rank or world size."""


class DiskFullError(HpcJobsError, OSError):
    """The disk cannot be written: it is full, over quota or read-only.

    It is an OSError too, for callers that can go on without the file.
    """

    fatal = True
    path: Path | None = None


class JournalError(HpcJobsError):
    """A journal cannot be written: disk full, over quota, or a second writer."""

    fatal = True


class MergeError(HpcJobsError):
    """A journal or ledger file is corrupt in a way that no crash explains. The message names file and offset."""


class IncompleteError(HpcJobsError):
    """The run has ended, but samples are missing."""

    exit_code = 3


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"` with the closest of `valid`, or an empty string if none is close."""
    near = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""
