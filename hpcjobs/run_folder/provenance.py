"""What ran: code, interpreter and weights, told apart well enough to know later."""

from __future__ import annotations

import getpass
import hashlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hpcjobs

if TYPE_CHECKING:
    from hpcjobs.run_folder.plan import Plan


def source_sha256() -> str:
    """A hash over the files of hpcjobs itself, as they are on disk now."""
    digest, package = hashlib.sha256(), Path(hpcjobs.__file__).parent
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def changed_since(code: Mapping[str, Any]) -> str:
    """What to say where hpcjobs' own code is not what the plan's `code` was made with; else nothing."""
    planned, now = code.get("hpcjobs_sha256"), source_sha256()
    if planned in (None, now):
        return ""
    return (
        f"hpcjobs has changed since this run was planned: planned with {code.get('hpcjobs')} (sha256 {planned}), "
        f"runs with {hpcjobs.__version__} (sha256 {now})"
    )


def code_facts() -> dict[str, Any]:
    """Which code this is: version, commit, interpreter, and where ranks look for what was not copied."""
    facts: dict[str, Any] = {"hpcjobs": hpcjobs.__version__, "hpcjobs_sha256": source_sha256()}
    facts["python"] = platform.python_version()
    facts |= {"executable": sys.executable, "cwd": os.getcwd(), "user": getpass.getuser()}
    facts["host"] = platform.node()
    commit = _git("rev-parse", "HEAD")
    if commit:
        facts |= {"commit": commit, "dirty": bool(_git("status", "--porcelain"))}
    return facts


def merged_facts(plan: Plan, seed: int) -> dict[str, Any]:
    """What metrics.json says of where its values come from; whoever merges adds what only it knows."""
    return {
        "run": plan.run, "job": plan.job, "model": plan.model, "data": plan.data, "seed": seed,
        "config_sha256": plan.config_sha256, "code": plan.code, "merged_with": hpcjobs.__version__,
        "merged_at": time.time(),
    }  # fmt: skip


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
