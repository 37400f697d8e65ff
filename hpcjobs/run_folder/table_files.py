"""The merged table: results.parquet, missing.jsonl and metrics.json, which are replaced together.

Each merge and each score makes a folder of its own in `tables/`, and then switches the link `tables/current` to it: a
reader, or a process that is killed at any moment, finds the old table or the new one. The three files in the run folder
are links to those in `tables/current`. Where a file system has no symbolic links they are replaced one after the other.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from hpcjobs.run_folder.disk import disk_errors
from hpcjobs.run_folder.files import (
    FileTransaction,
    hide,
    make_folder,
    new_folder,
    replace_whole,
    sync_folder,
    temporary_name,
)
from hpcjobs.run_folder.leftovers import remove_leftovers
from hpcjobs.run_folder.paths import RunPaths

_NO_SYMLINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS}


class TableSwitch(FileTransaction):
    """Files of the merged table, all of which are switched to at the end of the block, or none if it raises."""

    def __init__(self, paths: RunPaths) -> None:
        super().__init__()
        self._paths = paths

    def _replace(self, made: list[tuple[Path, Path]]) -> None:
        paths = self._paths
        with disk_errors(paths.results):
            if not _has_links(make_folder(paths.tables)):
                return super()._replace(made)
            if any(path.is_file() and not path.is_symlink() for path in _files(paths)):
                _switch(paths, [])  # plain files of an earlier version
            return _switch(paths, made)


def _has_links(folder: Path) -> bool:
    """Whether the file system has symbolic links."""
    probe = temporary_name(folder / "link")
    try:
        os.symlink("current", probe)
    except OSError as error:
        if error.errno not in _NO_SYMLINKS:
            raise
        return False
    probe.unlink()
    return True


def _files(paths: RunPaths) -> tuple[Path, ...]:
    return paths.results, paths.missing, paths.metrics


def _switch(paths: RunPaths, made: list[tuple[Path, Path]]) -> None:
    """Make a folder of the files that were made, and those of today's table that were not, and switch to it."""
    remove_leftovers(paths.tables)
    before = paths.table.resolve() if paths.table.is_symlink() else None
    folder = temporary_name(paths.tables / "table")
    new_folder(folder)
    for path in _files(paths):
        if path.is_file() and path not in [name for _, name in made]:
            _take_over(path.resolve(), folder / path.name)
    while made:
        temporary, path = made[0]
        os.rename(temporary, folder / path.name)
        made.pop(0)
    sync_folder(folder)
    new = paths.tables / f"{time.time_ns()}-{secrets.token_hex(4)}"
    os.rename(folder, new)
    _link(paths.tables, new.name, paths.table)
    for path in _files(paths):
        target = os.path.join(paths.tables.name, paths.table.name, path.name)
        if not path.is_symlink() or os.readlink(path) != target:
            _link(paths.root, target, path)
    _remove_others(paths, new, before)


def _link(folder: Path, target: str, path: Path) -> None:
    """Let `path` be a symbolic link to `target`, atomically but where it is a folder: of a copy that followed links."""
    temporary = temporary_name(folder / path.name)
    os.symlink(target, temporary)
    copied = temporary_name(folder / path.name)
    if path.is_dir() and not path.is_symlink():
        os.rename(path, copied)
    replace_whole(temporary, path)
    shutil.rmtree(copied, ignore_errors=True)


def _take_over(old: Path, new: Path) -> None:
    try:
        os.link(old, new)
    except OSError:
        shutil.copyfile(old, new)
        hide(new)


def _remove_others(paths: RunPaths, new: Path, before: Path | None) -> None:
    """Remove older tables. One that another process has made meanwhile is newer, and stays until the next merge."""
    older: Sequence[Path] = [one for one in paths.tables.iterdir() if one.name[0] != "." and not one.is_symlink()]
    for one in older:
        if one == before or one.name < new.name:
            with contextlib.suppress(OSError):
                shutil.rmtree(one)
