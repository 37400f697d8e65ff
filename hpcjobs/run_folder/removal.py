"""Remove run folders, and what killed commands have left beside them."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from hpcjobs.run_folder.files import sync_folder, temporary_name
from hpcjobs.run_folder.leftovers import remove_folders
from hpcjobs.run_folder.paths import RunPaths

# What submit writes before plan.json: a folder with nothing else is one that an earlier version has left unfinished.
_UNFINISHED = {"config.yaml", "inputs", "heartbeats", "ranks", "logs", "rendezvous", "claims", "then_eval.yaml", "code"}


def remove_folder(folder: Path) -> None:
    """Remove a run folder. Its name is free at once; if this process is killed, `prune` removes the rest."""
    temporary = temporary_name(folder.with_name(folder.name[:100]))
    try:
        os.rename(folder, temporary)
    except FileNotFoundError:
        return
    with contextlib.suppress(OSError):
        sync_folder(folder.parent)
    shutil.rmtree(temporary, ignore_errors=True)


def prune(root: Path) -> list[str]:
    """Remove temporary run folders of killed commands from the runs root; returns their names."""
    return remove_folders(root) if root.is_dir() else []


def is_unfinished(folder: Path) -> bool:
    """Whether `folder` is a run folder without a plan, which a killed submit of an earlier version has left."""
    if not folder.is_dir() or RunPaths(folder).plan.exists():
        return False
    names = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
    return RunPaths(folder).heartbeats.name in names and names <= _UNFINISHED

