"""Provenance: the version of hpcjobs, Python and the user's code that a run used."""

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
    """A SHA-256 over hpcjobs' own source files, as they are on disk now."""
    digest, package = hashlib.sha256(), Path(hpcjobs.__file__).parent
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def changed_since(code: Mapping[str, Any]) -> str:
    """A warning if hpcjobs' source differs from that in the plan's `code`; else an empty string."""
    planned, now = code.get("hpcjobs_sha256"), source_sha256()
    if planned in (None, now):
        return ""
    return (
        f"hpcjobs has changed since this run was planned: planned with {code.get('hpcjobs')} (sha256 {planned}), "
        f"runs with {hpcjobs.__version__} (sha256 {now})"
    )


def code_facts() -> dict[str, Any]:
    """Version, commit, interpreter and working directory, for plan.json."""
    facts: dict[str, Any] = {"hpcjobs": hpcjobs.__version__, "hpcjobs_sha256": source_sha256()}
    facts["python"] = platform.python_version()
    facts |= {"executable": sys.executable, "cwd": os.getcwd(), "user": getpass.getuser()}
    facts["host"] = platform.node()
    commit = _git("rev-parse", "HEAD")
    if commit:
        facts |= {"commit": commit, "dirty": bool(_git("status", "--porcelain"))}
    return facts


def merged_facts(plan: Plan, seed: int) -> dict[str, Any]:
    """The provenance in metrics.json; callers add what only they know."""
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
