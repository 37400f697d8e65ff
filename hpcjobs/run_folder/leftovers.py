"""Temporary files that name the process that made them, and their removal once that process is dead."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import re
import shutil
import time
from pathlib import Path

from hpcjobs.run_folder.process import Identity, machine_id

log = logging.getLogger(__name__)
_DAY_SECONDS = 86_400.0
# `.results.parquet.<machine>-<pid>-<started>.<random>.tmp`, as `files.temporary_name` makes them.
_NAME = re.compile(r"\..+\.([0-9a-f]{12})-(\d+)-(\d+)\.[0-9a-f]+\.tmp")


def own_mark() -> str:
    """The machine, pid and start time of this process, as part of a file name."""
    return _mark_of(os.getpid())


@functools.lru_cache(maxsize=1)
def _mark_of(pid: int) -> str:
    """Cached by pid, because a forked process inherits the cache."""
    return f"{_machine()}-{pid}-{Identity.own().started}"


def _machine() -> str:
    return hashlib.sha256(machine_id().encode()).hexdigest()[:12]


def remove_leftovers(folder: Path) -> list[str]:
    """Remove temporary files of killed processes from `folder`; returns their names.

    Only files that nobody can be writing: their process ran on this machine and is dead, or they have not changed for a
    day. Another merge that is running, here or on another node, keeps its files.
    """
    return _remove([entry for entry in folder.glob(".*.tmp") if _is_dead(entry) or _is_old(entry)])


def remove_folders(root: Path) -> list[str]:
    """The same for temporary run folders in the runs root, where other files are not ours."""
    found = [entry for entry in root.glob(".*.tmp") if _NAME.fullmatch(entry.name) and entry.is_dir()]
    return _remove([entry for entry in found if _is_dead(entry) or _is_old(entry)])


def _remove(found: list[Path]) -> list[str]:
    for entry in found:
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        with contextlib.suppress(OSError):  # another merge has been quicker
            entry.unlink(missing_ok=True)
        log.info("removed %s, which a killed process had left", entry)
    return sorted(entry.name for entry in found)


def _is_dead(entry: Path) -> bool:
    match = _NAME.fullmatch(entry.name)
    if not match or match[1] != _machine() or match[3] == "0":
        return False
    return Identity(machine_id(), int(match[2]), match[3]).is_dead()


def _is_old(entry: Path) -> bool:
    """Whether neither it nor anything in it has changed for a day, more than clocks of hosts differ."""
    with contextlib.suppress(OSError):
        changes = [path.stat().st_mtime for path in (entry, *entry.glob("*"))]
        return time.time() - max(changes) > _DAY_SECONDS
    return False
