"""Errors of a full disk: which file and file system, how much space is needed, and the command to run next."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpcjobs.errors import DiskFullError
from hpcjobs.run_folder.paths import RunPaths

# errno(3) -> what the user has to do before going on.
_CURES = {
    errno.ENOSPC: "free space there", errno.EDQUOT: "free space there or have the quota raised",
    errno.EROFS: "have it made writable", errno.EFBIG: "have that limit raised (ulimit -f)",
}  # fmt: skip
_RECORD_BYTES = 400.0  # a record of a short answer; only until there are records to measure
_SAMPLE_BYTES = 1 << 18
_CLAIM_BYTES = 4096  # a block: what a small file takes on most file systems
_PAGE_BYTES = 1 << 20  # metrics.json, report.html, logs
# How Rust prints an errno.
_OS_ERROR = re.compile(r"os error (\d+)")
# Bytes that can be written unless the disk is full.
_PROBE = 1 << 20


def is_full(error: OSError) -> bool:
    """Whether a write failed because of space, quota, file size limit or a read-only file system."""
    return error.errno in _CURES


@dataclass(frozen=True)
class Space:
    """A file system: its mount point, the bytes free for this user, and whether it has inodes left."""

    mount: Path
    free: int
    takes_files: bool

    @classmethod
    def of(cls, path: Path) -> Space:
        """The file system of `path`, or of its nearest existing parent."""
        mount = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
        facts = os.statvfs(mount)
        while not mount.is_mount():
            mount = mount.parent
        return cls(mount, facts.f_bavail * facts.f_frsize, facts.f_files == 0 or facts.f_favail > 0)


def bytes_text(number: float) -> str:
    """A size for people, in decimal units, such as `1.3 MB`."""
    if number < 1000:
        return f"{number:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if number < 999.95:
            return f"{number:.1f} {unit}"
    return f"{number / 1000:.1f} TB"


def disk_message(error: OSError, path: Path, need: int, next_command: str) -> str:
    """One line: the path, its file system, the need in bytes, what to do, and the command to type after it."""
    space, code = Space.of(path), error.errno or 0
    free = f"{bytes_text(space.free)} free" if space.takes_files else "no inode free for one more file"
    where = {
        errno.ENOSPC: f"{free} on the file system at {space.mount}",
        errno.EDQUOT: f"your quota on the file system at {space.mount} is used up",
        errno.EROFS: f"the file system at {space.mount} is read-only",
        errno.EFBIG: f"a limit on one file's size, with {free} on the file system at {space.mount}",
    }[code]
    return (
        f"{path} cannot be written: {os.strerror(code)}: {where}; needed: about {bytes_text(need)}; "
        f"{_CURES[code]}, then: {next_command}"
    )


def disk_error(error: OSError, path: Path, need: int | None = None, next_command: str | None = None) -> DiskFullError:
    """The DiskFullError for `error`.

    `need` is in bytes. By default, for a file in a run, it is what the run still needs, and the next command is resume.
    """
    need = need_there(path, 0) if need is None else need
    full = DiskFullError(disk_message(error, path, need, next_command or next_step(path)))
    full.errno, full.path = error.errno, path
    return full


@contextlib.contextmanager
def disk_errors(path: Path, size: int = 0, need: int | None = None, next_command: str | None = None) -> Iterator[None]:
    """Turn an OSError of a full disk into a DiskFullError while `size` bytes are written to `path`.

    `need` (bytes) and `next_command` are for the whole stage, if the caller knows them; they also replace those of a
    DiskFullError that the block raised itself.
    """
    try:
        yield
    except DiskFullError as error:
        if need is None:
            raise
        raise disk_error(error, error.path or path, need, next_command) from None
    except OSError as error:
        if not is_full(error):
            raise
        raise disk_error(error, path, need_there(path, size) if need is None else need, next_command) from error


@contextlib.contextmanager
def os_errors_of_libraries(folder: Path) -> Iterator[None]:
    """Turn an error of torch or safetensors, which write to `folder`, into an OSError if the disk is full."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if match := _OS_ERROR.search(str(error)):
            raise OSError(int(match[1]), str(error)) from error
        with (folder / "probe").open("wb") as file:
            file.write(bytes(_PROBE))
            os.fsync(file.fileno())
        (folder / "probe").unlink()
        raise


def run_of(path: Path) -> RunPaths | None:
    """The run that `path` belongs to; None outside of runs, and in a run that has no plan yet."""
    folders = (path, *path.parents)
    return next((RunPaths(folder) for folder in folders if (folder / "plan.json").is_file()), None)


def next_step(path: Path) -> str:
    """The command to run once `path` can be written again."""
    run = run_of(path)
    return f"hpcjobs resume {run.root}" if run else "the same command again"


def need_there(path: Path, size: int) -> int:
    """Bytes still to be written after `size` bytes of `path` could not be: what the whole run needs, or just `size`
    outside of a run.
    """
    run = run_of(path)
    with contextlib.suppress(OSError, ValueError, KeyError):
        return size + rest_of_run(run) if run else size
    return size


def whole_run(rows: int, chunks: int, inputs: int, record: float = _RECORD_BYTES) -> int:
    """An estimate of the bytes that a run writes after its inputs: records, claims, and a merge as large as both."""
    return int(2 * rows * record) + 2 * chunks * _CLAIM_BYTES + inputs + _PAGE_BYTES


def rest_of_run(paths: RunPaths) -> int:
    """An estimate of the bytes still to be written, from the mean size of the records so far."""
    plan = json.loads(paths.plan.read_bytes())
    records, written = plan["rows"] * _mean_record(paths), _size_of_journals(paths)
    left = max(0.0, 1 - written / records) if records else 0.0
    return int(left * (2 * records + 2 * plan["chunks"] * _CLAIM_BYTES)) + merge_need(paths)


def shortage(paths: RunPaths) -> str | None:
    """A message if the file system has too little space for the rest of the run, else None.

    A stage that hit a full disk may not have been able to write the reason down.
    """
    need, space = rest_of_run(paths), Space.of(paths.root)
    if space.takes_files and space.free >= need:
        return None
    free = bytes_text(space.free) if space.takes_files else "no inode"
    return (
        f"{free} free on the file system at {space.mount}, where {paths.root} needs about {bytes_text(need)} more; "
        f"{_CURES[errno.ENOSPC]}, then: hpcjobs resume {paths.root}"
    )


def merge_need(paths: RunPaths) -> int:
    """An upper estimate of the bytes that a merge writes: all records sorted, the inputs, and the report."""
    inputs = paths.data.stat().st_size if paths.data.exists() else 0
    return _size_of_journals(paths) + inputs + _PAGE_BYTES


def _size_of_journals(paths: RunPaths) -> int:
    return sum(path.stat().st_size for path in paths.journals())


def _mean_record(paths: RunPaths) -> float:
    """Mean bytes per record, from the beginning of the largest journal."""
    largest = max(paths.journals(), key=lambda path: path.stat().st_size, default=None)
    if largest is None:
        return _RECORD_BYTES
    with largest.open("rb") as file:
        sample = file.read(_SAMPLE_BYTES)
    lines = sample.count(b"\n")
    return (sample.rindex(b"\n") + 1) / lines if lines else max(_RECORD_BYTES, len(sample))
