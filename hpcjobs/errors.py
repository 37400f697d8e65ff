"""What can go wrong, and the exit code it ends with."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class HpcJobsError(Exception):
    """Base of all errors that are told to the user without a traceback; `exit_code` is the process's.

    `fatal`: starting again cannot help before somebody has acted.
    """

    exit_code = 1
    fatal = False


class UsageError(HpcJobsError):
    """Wrong flags, names or values: nothing was queued or written."""

    exit_code = 2


class ConfigError(UsageError):
    """A config that does not say what can be run; the message names file, line and key."""


class DataError(UsageError):
    """A data set that cannot be read or used as it is; the message names the row."""


class LaunchError(HpcJobsError):
    """The queue or the local launcher refused or failed."""


class RendezvousError(HpcJobsError):
    """Ranks did not find each other before the deadline, or do not agree on who they are."""


class DiskFullError(HpcJobsError, OSError):
    """A disk takes no more (full, over quota, read-only); also an OSError, for those who can do without the file."""

    fatal = True
    path: Path | None = None


class JournalError(HpcJobsError):
    """A journal cannot be written (disk full, quota, second writer)."""

    fatal = True


class MergeError(HpcJobsError):
    """A journal or ledger file is broken where no crash can break it; names file and offset."""


class IncompleteError(HpcJobsError):
    """The run has ended and samples are missing."""

    exit_code = 3


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """' (did you mean 'x'?)' for the nearest of `valid`, or '' where none is near."""
    near = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""
