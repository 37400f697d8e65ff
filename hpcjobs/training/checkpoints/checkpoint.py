"""Checkpoint folders: files, and a manifest with their hashes, written last; renamed to their final name at the end."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hpcjobs.run_folder.disk import disk_errors, os_errors_of_libraries
from hpcjobs.run_folder.files import (
    hide,
    make_folder,
    new_folder,
    read_json,
    sha256_of,
    sync_folder,
    temporary_name,
    write_json,
)
from hpcjobs.run_folder.leftovers import remove_leftovers
from hpcjobs.run_folder.paths import RunPaths, steps_in

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class NewestCheckpoint:
    """The newest checkpoint that verifies (None: there is none), and the newer ones that do not, with the reason."""

    step: int | None
    passed_over: list[str]


@dataclass(frozen=True)
class BestCheckpoint:
    """The checkpoint with the lowest validation loss."""

    step: int
    eval_loss: float


class Checkpoints:
    """The checkpoints of a run: the newest `keep`, and with `keep_best` also the best. Only rank 0 writes."""

    def __init__(self, paths: RunPaths, keep: int, keep_best: bool = False) -> None:
        self._paths, self._keep, self._keep_best = paths, keep, keep_best
        self._whole: dict[int, bool] = {}  # by step: what was read back already

    def steps(self) -> list[int]:
        """The steps that have a folder, whole or not, newest first."""
        return steps_in(self._paths.checkpoints)[::-1]

    def newest(self) -> NewestCheckpoint:
        """The newest checkpoint that verifies. Reads all of its files."""
        passed_over: list[str] = []
        for step in self.steps():
            wrong = self._proof(step)
            if wrong is None:
                return NewestCheckpoint(step, passed_over)
            passed_over.append(f"{self._paths.checkpoint(step).name}: {wrong}")
        return NewestCheckpoint(None, passed_over)

    def best(self, last: int) -> BestCheckpoint | None:
        """Of the checkpoints up to step `last` the one with the lowest `eval_loss` among its facts, the first of equal
        ones; None if none has one."""
        found = list[BestCheckpoint]()
        for step in (step for step in self.steps()[::-1] if step <= last):
            with contextlib.suppress(OSError, ValueError, KeyError):
                found.append(
                    BestCheckpoint(step, float(read_json(self._paths.checkpoint(step) / MANIFEST)["eval_loss"]))
                )
        return min(found, key=lambda one: one.eval_loss, default=None)

    def write(self, step: int, facts: Mapping[str, object], fill: Callable[[Path], None]) -> Path:
        """Let `fill` write files to a temporary folder, add the manifest, rename it, and remove what is not kept.

        An older checkpoint is removed only after this one was read back and verified. Raises a DiskFullError.
        """
        target = self._paths.checkpoint(step)
        make_folder(self._paths.checkpoints)
        remove_leftovers(self._paths.checkpoints)
        temporary = temporary_name(target)
        with disk_errors(target, need=self._size(), next_command=f"hpcjobs resume {self._paths.root}"):
            new_folder(temporary)
            try:
                with os_errors_of_libraries(temporary):
                    fill(temporary)
                files = {path.name: _synced(path) for path in sorted(temporary.iterdir())}
                write_json(temporary / MANIFEST, {"step": step, "files": files} | dict(facts))
                self._name(temporary, target)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        if wrong := self._proof(step):
            raise OSError(f"checkpoint {target} was written and is not whole: {wrong}")
        self._prune(step)
        return target

    def _proof(self, step: int) -> str | None:
        """What is wrong with a checkpoint, read from the disk."""
        wrong = proof(self._paths.checkpoint(step))
        self._whole[step] = wrong is None
        return wrong

    def _is_whole(self, step: int) -> bool:
        return self._whole[step] if step in self._whole else self._proof(step) is None

    def _size(self) -> int | None:
        """The size of the newest checkpoint in bytes, as an estimate of the next; None if there is none."""
        for step in self.steps():
            with contextlib.suppress(OSError, ValueError, KeyError):
                return manifest_bytes(self._paths.checkpoint(step))
        return None

    def _name(self, temporary: Path, target: Path) -> None:
        """Rename the folder. An existing one is broken, or of the same step of another start, and is replaced."""
        if target.exists():
            aside = temporary_name(target)
            os.rename(target, aside)
            os.rename(temporary, target)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            os.rename(temporary, target)
        sync_folder(target.parent)

    def _prune(self, written: int) -> None:
        """Remove all but the newest `keep` whole checkpoints, and the best one.

        A damaged one does not count, or whole ones would go in its place. Those of later steps than the one just
        `written` are not whole: this start has passed over them.
        """
        kept, best = 0, self.best(written) if self._keep_best else None
        for step in self.steps():
            folder = self._paths.checkpoint(step)
            if (kept >= self._keep or step > written) and not (best and step == best.step):
                with contextlib.suppress(OSError):
                    (folder / MANIFEST).unlink()  # what is half removed must not look whole
                shutil.rmtree(folder, ignore_errors=True)
            elif kept < self._keep:
                kept += self._is_whole(step)


def manifest_bytes(folder: Path) -> int:
    """The size of a checkpoint in bytes, from its manifest. Raises an OSError, ValueError or KeyError if it is
    unreadable.
    """
    return sum(int(file["size"]) for file in read_json(folder / MANIFEST)["files"].values())


def proof(folder: Path) -> str | None:
    """None if every file has the size and hash in the manifest; else what is wrong."""
    try:
        manifest = read_json(folder / MANIFEST)
        files: dict[str, dict[str, int | str]] = manifest["files"]
    except FileNotFoundError:
        return f"it has no {MANIFEST}: it was not finished"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its {MANIFEST} cannot be read: {error}"
    for name, expected in files.items():
        try:
            size = (folder / name).stat().st_size
            if size != expected["size"]:
                return f"{name} has {size} bytes, not {expected['size']}"
            if sha256_of(folder / name) != expected["sha256"]:
                return f"{name} is not what was written: its sha256 differs"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
    return None


def _synced(path: Path) -> dict[str, int | str]:
    """Make a file private and durable; returns its entry of the manifest."""
    hide(path)
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return {"size": path.stat().st_size, "sha256": sha256_of(path)}
