"""Disks that fill up for real: tmpfs mounts of a given size, which can be grown."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Disk:
    """A mounted file system; `path` is its mount point."""

    path: Path

    @property
    def free(self) -> int:
        facts = os.statvfs(self.path)
        return facts.f_bavail * facts.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Take all room but `leave` bytes, in whole pages."""
        self.clear()
        with (self.path / "ballast").open("wb") as file:
            if self.free > leave:
                os.posix_fallocate(file.fileno(), 0, self.free - leave)

    def clear(self) -> None:
        """Give back what `fill` took."""
        (self.path / "ballast").unlink(missing_ok=True)

    def remount(self, options: str) -> None:
        """`mount -o remount`: another size, read-only."""
        subprocess.run(["mount", "-o", f"remount,{options}", self.path], check=True)


@contextlib.contextmanager
def small_disk(path: Path, options: str) -> Iterator[Disk]:
    """A tmpfs at `path`, such as `size=300k`; unmounted at the end even where files of it are open."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = f"a tmpfs cannot be mounted here: {done.stderr.strip()}"
        if os.environ.get("HPCJOBS_REQUIRE_SLURM") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=False)
