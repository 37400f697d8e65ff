"""Whose files a run is made of: nobody else may have written what this user is about to read and run."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from hpcjobs.errors import UsageError


def is_shared(folder: Path) -> bool:
    """Whether what is made in this folder is for its group: that of a run with `run.shared: group`, or below it."""
    try:
        mode = folder.stat().st_mode
    except OSError:
        return False
    return mode & (stat.S_ISGID | stat.S_IWGRP | stat.S_IWOTH) == stat.S_ISGID | stat.S_IWGRP


def check_trusted(root: Path) -> None:
    """Raise a UsageError if the run folder belongs to another user, or others may write to it.

    Its code would run as this user, and its plan says what. A folder of `run.shared: group` is for its group to write.
    """
    facts = root.stat()
    if is_shared(root) and facts.st_gid in {os.getegid(), *os.getgroups()}:
        return
    if facts.st_uid != os.geteuid():
        raise UsageError(
            f"{root} belongs to {_user(facts.st_uid)}, and its code would run as you: only runs that were submitted "
            "with run.shared: group, by a member of a group of yours, are for several users; next: copy it, if you "
            f"trust it: cp -r {root} MY_RUN"
        )
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UsageError(
            f"{root} may be written by {'others' if facts.st_mode & stat.S_IWOTH else 'its group'} (mode "
            f"{stat.S_IMODE(facts.st_mode):o}), and its code would run as you; next, if nobody has: "
            f"chmod -R go-w {root}"
        )


def _user(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"uid {uid}"
