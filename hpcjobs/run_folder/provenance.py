"""Provenance: the version of hpcjobs, Python and the user's code that a run used."""

from __future__ import annotations

import getpass
import hashlib
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import hpcjobs
from hpcjobs.run_folder.plan import Plan, PlanCode


def source_sha256() -> str:
    """A SHA-256 over hpcjobs' own source files, as they are on disk now."""
    digest, package = hashlib.sha256(), Path(hpcjobs.__file__).parent
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def changed_since(code: PlanCode) -> str:
    """A warning if hpcjobs' source differs from that in the plan's `code`; else an empty string."""
    planned, now = code.hpcjobs_sha256, source_sha256()
    if planned in (None, now):
        return ""
    return (
        f"hpcjobs has changed since this run was planned: planned with {code.hpcjobs} (sha256 {planned}), "
        f"runs with {hpcjobs.__version__} (sha256 {now})"
    )


def code_facts() -> PlanCode:
    """Version, commit, interpreter and working directory, for plan.json."""
    commit = _git("rev-parse", "HEAD") or None
    return PlanCode(
        hpcjobs=hpcjobs.__version__,
        hpcjobs_sha256=source_sha256(),
        python=platform.python_version(),
        executable=sys.executable,
        cwd=os.getcwd(),
        user=getpass.getuser(),
        host=platform.node(),
        commit=commit,
        dirty=bool(_git("status", "--porcelain")) if commit else None,
    )


def merged_facts(plan: Plan, seed: int) -> dict[str, object]:
    """The provenance in metrics.json; callers add what only they know."""
    return {
        "run": plan.run, "job": plan.job, "model": plan.model.values(), "data": plan.data.values(), "seed": seed,
        "config_sha256": plan.config_sha256, "code": plan.code.values(), "merged_with": hpcjobs.__version__,
        "merged_at": time.time(),
    }  # fmt: skip


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
