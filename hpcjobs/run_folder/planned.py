"""What a run was planned with, file by file, and what its ranks find: `inputs/planned.json`, `inputs/versions.json`.

A model folder may be written again while a job waits, and an environment may be updated between two starts. Each rank
compares; a difference ends it, or is recorded where `run.allow_changed` is set.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hpcjobs.errors import HpcJobsError
from hpcjobs.run_folder.files import create_once, json_text, read_json, sha256_of, write_json
from hpcjobs.run_folder.paths import RunPaths

# Packages whose versions change what a model answers or learns.
PACKAGES = ("torch", "transformers", "tokenizers", "peft", "vllm")
Hashes = Mapping[str, str]


class ChangedError(HpcJobsError):
    """What a rank finds is not what was planned. No restart changes that."""

    fatal = True


@dataclass(frozen=True, kw_only=True)
class Planned:
    """The content of planned.json: SHA-256 by file, of the run's inputs and of the model's folder (see
    engines.fingerprint). Runs of earlier versions have none.
    """

    inputs: Hashes = field(default_factory=dict)
    model: Hashes = field(default_factory=dict)

    @classmethod
    def read(cls, paths: RunPaths) -> Planned:
        """Read planned.json."""
        return cls(**read_json(paths.planned)) if paths.planned.exists() else cls()

    @classmethod
    def write(cls, paths: RunPaths, model: Hashes) -> None:
        """Write planned.json for the inputs as they are in the run folder now."""
        files = sorted(paths.inputs.glob("*.arrow"))
        write_json(paths.planned, {"inputs": {path.name: sha256_of(path) for path in files}, "model": dict(model)})


def changed_inputs(paths: RunPaths, planned: Hashes) -> list[str]:
    """What differs among the inputs, one line each with both hashes."""
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
    first: dict[str, str] = read_json(paths.versions)
    return [
        f"{name}: {first.get(name, 'not installed')} at the first start, now {now.get(name, 'not installed')}"
        for name in PACKAGES
        if first.get(name) != now.get(name)
    ]


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
