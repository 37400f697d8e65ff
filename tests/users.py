"""Programs of other users of this machine: a real uid and gid, where the tests run as root."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

STRANGER = 65534
REPO = Path(__file__).resolve().parents[1]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="another uid can only be taken by root")


def as_user(
    uid: int, command: Sequence[str], gid: int | None = None, more: Mapping[str, str] | None = None, umask: int = 0o022
) -> subprocess.CompletedProcess[str]:
    """Run `command` as another user, in a mount namespace where Python and this repository can be read by all."""
    gid = uid if gid is None else gid
    words = ["setpriv", "--reuid", str(uid), "--regid", str(gid), "--clear-groups", "--", *command]
    lines = [*_opened(), f"umask {umask:o}", "cd /", f"exec {shlex.join(words)}"]
    env = {**os.environ, "PYTHONPATH": str(REPO), "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent"}
    env |= {"LOGNAME": f"user{uid}", **(more or {})}
    words = ["unshare", "--mount", "sh", "-ec", "\n".join(lines)]
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=120, check=False)


def _opened() -> list[str]:
    """Lines that lay an open folder over each closed one, such as root's home, with what Python needs in its place."""
    packages = sysconfig.get_paths()["purelib"]
    needed = [Path(p).resolve() for p in (sys.base_prefix, sys.prefix, packages, REPO, Path(sys.executable).parent)]
    lines, hidden = ["h=$(mktemp -d)"], 0
    for closed in sorted({_closed(path) for path in needed} - {None}):  # type: ignore[type-var]
        inside = list(dict.fromkeys(path for path in needed if path.is_relative_to(closed)))  # type: ignore[arg-type]
        for path in inside:
            lines += [f"mkdir $h/{hidden}", f"mount --rbind {path} $h/{hidden}"]
            hidden += 1
        lines.append(f"mount -t tmpfs -o mode=755 none {closed}")
        for number, path in enumerate(inside, hidden - len(inside)):
            lines += [f"mkdir -p {path}", f"mount --rbind $h/{number} {path}"]
    return lines


def _closed(path: Path) -> Path | None:
    """The outermost folder on the way that others may not enter."""
    return next((one for one in reversed([path, *path.parents]) if not one.stat().st_mode & 0o001), None)
