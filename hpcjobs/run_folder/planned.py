"""What a run was planned with, file by file, and what its ranks find: `inputs/planned.json`, `inputs/versions.json`.

A model folder may be written again while a job waits, and an environment may be updated between two starts. Each rank
compares; a difference ends it, or is recorded where `run.allow_changed` is set.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from hpcjobs.errors import HpcJobsError
from hpcjobs.run_folder.files import create_once, json_text, read_json, sha256_of, write_json
from hpcjobs.run_folder.paths import RunPaths

# Packages whose versions change what a model answers or learns.
PACKAGES = ("torch", "transformers", "tokenizers", "peft", "vllm")
_VISIBLE_SECONDS = 5.0
Hashes = Mapping[str, str]


class ChangedError(HpcJobsError):
    """What a rank finds is not what was planned. No restart changes that."""

    fatal = True


def write_hashes(paths: RunPaths) -> None:
    """Write planned.json: the SHA-256 of the run's inputs, by file."""
    write_json(paths.planned, {path.name: sha256_of(path) for path in sorted(paths.inputs.glob("*.arrow"))})


def changed_inputs(paths: RunPaths) -> list[str]:
    """What differs among the inputs, one line each with both hashes. Runs of earlier versions have no hashes."""
    if not paths.planned.exists():
        return []
    planned: dict[str, str] = read_json(paths.planned)
    now = {name: sha256_of(paths.inputs / name) for name in planned if (paths.inputs / name).exists()}
    return differences(paths.inputs, planned, now)


def differences(folder: Path, planned: Hashes, now: Hashes) -> list[str]:
    """The files of `folder` that are not what was planned, one line each with both hashes."""
    return [
        f"{folder / name}: planned {_short(planned.get(name))}, now {_short(now.get(name))}"
        for name in sorted(planned.keys() | now.keys())
        if planned.get(name) != now.get(name)
    ]


def _short(digest: str | None) -> str:
    return f"sha256 {digest[:16]}" if digest else "not there"


def changed_versions(paths: RunPaths) -> list[str]:
    """What differs from the packages of the first rank that ever started, which records its own."""
    now = versions()
    if create_once(paths.versions, json_text(now)):
        return []
    first = _read_soon(paths.versions)
    return [
        f"{name}: {first.get(name, 'not installed')} at the first start, now {now.get(name, 'not installed')}"
        for name in PACKAGES
        if first.get(name) != now.get(name)
    ]


def _read_soon(path: Path) -> dict[str, str]:
    """The content of a file that another node has just made, and this one may not see yet."""
    deadline = time.monotonic() + _VISIBLE_SECONDS
    while True:
        try:
            found: dict[str, str] = read_json(path)
            return found
        except FileNotFoundError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def versions() -> dict[str, str]:
    """The installed versions of PACKAGES, without importing them."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def allow(paths: RunPaths, attempt: str, changes: Iterable[str]) -> None:
    """Record what has changed and was allowed; merges and metrics.json name it."""
    write_json(paths.inputs / f"changed-{attempt}.json", list(changes))


def allowed_changes(paths: RunPaths) -> list[str]:
    """What was recorded by `allow`, in all starts of the run, each once, as warnings."""
    found = [line for file in sorted(paths.inputs.glob("changed-*.json")) for line in read_json(file)]
    return [f"not as planned, and allowed (run.allow_changed): {line}" for line in dict.fromkeys(found)]
