"""What ran: code, interpreter and weights, told apart well enough to know later."""

from __future__ import annotations

import getpass
import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import hpcjobs


def weights_fingerprint(folder: Path) -> str:
    """A hash over the names, sizes and headers of the files: what a swapped model changes, without reading GBs."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        with path.open("rb") as file:
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode() + file.read(1 << 20))
    return digest.hexdigest()


def code_facts() -> dict[str, Any]:
    """Which code this is: version, commit, interpreter, and where ranks look for the user's modules."""
    facts: dict[str, Any] = {"hpcjobs": hpcjobs.__version__, "python": platform.python_version()}
    facts |= {"executable": sys.executable, "cwd": os.getcwd(), "user": getpass.getuser()}
    facts["host"] = platform.node()
    commit = _git("rev-parse", "HEAD")
    if commit:
        facts |= {"commit": commit, "dirty": bool(_git("status", "--porcelain"))}
    return facts


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
