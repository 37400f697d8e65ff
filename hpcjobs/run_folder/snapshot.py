"""A copy of the user's code, made when planning: ranks import it, whatever is edited meanwhile."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpcjobs.run_folder.files import make_folder, open_file, sync_folder, write_all
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import PlanCode, PlanSnapshot

MAX_FILES = 2_000
MAX_BYTES = 20_000_000
MAX_ENTRIES = 50_000

# `python -m` searches the working directory first; this drops it from sys.path.
_RUN_MODULE = (
    "import sys; sys.path[:] = filter(None, sys.path); del sys.argv[0]; import runpy; "
    "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Files to copy to `code/`, by name, and symlinks from there to files that are not code (absolute paths).

    `program` is the file that a script run starts, or `module` its module; with `command` it runs a command as it is.
    With `meets_itself` the program sets its ranks' variables. `also` is a folder to import from after
    `code/`, if only part of it was copied. `note` says what was not copied, and why. `made` counts the files that
    hpcjobs made itself.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    program: str = ""
    module: str = ""
    command: bool = False
    meets_itself: bool = False
    also: str = ""
    note: str = ""
    made: int = 0

    @property
    def sha256(self) -> str:
        """A SHA-256 of names and contents."""
        digest = hashlib.sha256()
        for name in sorted(self.files):
            digest.update(f"{name}\0{len(self.files[name])}\0".encode() + self.files[name])
        return digest.hexdigest()

    def facts(self) -> PlanSnapshot:
        """What plan.json records of the snapshot; empty if there is nothing to record."""
        return PlanSnapshot(
            sha256=self.sha256 if self.files else None,
            files=len(self.files) - self.made or None,
            program=self.program or None,
            module=self.module or None,
            command=self.command or None,
            meets_itself=self.meets_itself or None,
            also=self.also or None,
            note=self.note or None,
        )

    def write(self, folder: Path) -> None:
        """Write the snapshot to the new folder `folder`. No reader looks there before plan.json exists."""
        for name, content in self.files.items():
            _create(_parent_of(folder / name), content)
        for name, target in self.links.items():
            _parent_of(folder / name).symlink_to(target)
        for parent in sorted({(folder / name).parent for name in self.files}):
            sync_folder(parent)


def _parent_of(path: Path) -> Path:
    make_folder(path.parent)
    return path


def _create(path: Path, content: bytes) -> None:
    handle = open_file(path, os.O_WRONLY | os.O_EXCL)
    try:
        write_all(handle, content)
        os.fsync(handle)
    finally:
        os.close(handle)


def import_as_planned(paths: RunPaths, code: PlanCode) -> None:
    """Put the snapshot on `sys.path`, followed by the folder from which the run was planned."""
    if paths.code.is_dir() and sys.path[:1] != [str(paths.code)]:
        sys.path.insert(0, str(paths.code))
    if code.cwd and code.cwd not in sys.path:
        sys.path.append(code.cwd)


def program_command(paths: RunPaths, code: PlanCode, argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """`(command, folders for PYTHONPATH)` of a script run, with the snapshot's program if there is one."""
    snapshot = code.snapshot
    folders = [str(paths.code)] if snapshot.files else []
    folders += [folder for folder in (snapshot.also, code.cwd) if folder]
    if snapshot.command:
        return list(argv), []
    python = [sys.executable, "-u"]
    if snapshot.program:
        return [*python, str(paths.code / snapshot.program), *argv[1:]], folders
    if snapshot.module:
        return [*python, "-c", _RUN_MODULE, *argv[1:]], folders
    return [*python, *argv], folders
