"""A disk that takes no more: which file, which file system, how much is needed, and what to type after it was freed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpcjobs.errors import DiskFullError
from hpcjobs.run_folder.paths import RunPaths

# errno(3) -> what a person has to do before it makes sense to go on.
_CURES = {
    errno.ENOSPC: "free space there", errno.EDQUOT: "free space there or have the quota raised",
    errno.EROFS: "have it made writable", errno.EFBIG: "have that limit raised (ulimit -f)",
}  # fmt: skip
_RECORD_BYTES = 400.0  # a record of a short answer; only until there are records to measure
_SAMPLE_BYTES = 1 << 18
_CLAIM_BYTES = 4096  # a block: what a small file takes on most file systems
_PAGE_BYTES = 1 << 20  # metrics.json, report.html, logs


def is_full(error: OSError) -> bool:
    """Whether a write was refused for want of space, quota, or permission of the whole file system to write."""
    return error.errno in _CURES


@dataclass(frozen=True)
class Space:
    """A file system: where it is mounted, the bytes that are free for this user, and whether it takes more files."""

    mount: Path
    free: int
    takes_files: bool

    @classmethod
    def of(cls, path: Path) -> Space:
        """The file system of `path`, or of its nearest parent that exists."""
        mount = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
        facts = os.statvfs(mount)
        while not mount.is_mount():
            mount = mount.parent
        return cls(mount, facts.f_bavail * facts.f_frsize, facts.f_files == 0 or facts.f_favail > 0)


def bytes_text(number: float) -> str:
    """`1.3 MB`: decimal units."""
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
    """The error to raise for `error`; of a file in a run, the need is by default the run's, and it is resumed."""
    need = need_there(path, 0) if need is None else need
    full = DiskFullError(disk_message(error, path, need, next_command or next_step(path)))
    full.errno, full.path = error.errno, path
    return full


@contextlib.contextmanager
def disk_errors(path: Path, size: int = 0, need: int | None = None, next_command: str | None = None) -> Iterator[None]:
    """Make a DiskFullError of an OSError that says so, raised while `size` bytes are written to `path`.

    `need` and `next_command` are those of the whole stage, where it knows better than the file does; they are
    then told also of errors that the block has raised as DiskFullError itself.
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


def run_of(path: Path) -> RunPaths | None:
    """The run that `path` is a file of; None outside of runs, and in one that is only being planned."""
    folders = (path, *path.parents)
    return next((RunPaths(folder) for folder in folders if (folder / "plan.json").is_file()), None)


def next_step(path: Path) -> str:
    """The command to type when `path` can be written again."""
    run = run_of(path)
    return f"hpcjobs resume {run.root}" if run else "the same command again"


def need_there(path: Path, size: int) -> int:
    """Bytes that are still to be written where `size` of `path` could not be: a run's rest, else these alone."""
    run = run_of(path)
    with contextlib.suppress(OSError, ValueError, KeyError):
        return size + rest_of_run(run) if run else size
    return size


def whole_run(rows: int, chunks: int, inputs: int, record: float = _RECORD_BYTES) -> int:
    """Bytes that a run writes after its inputs, about: records, claims, and a merge as large as both sorted."""
    return int(2 * rows * record) + 2 * chunks * _CLAIM_BYTES + inputs + _PAGE_BYTES


def rest_of_run(paths: RunPaths) -> int:
    """Bytes that the samples without a record, their claims and the merge will take, by the mean record so far."""
    plan = json.loads(paths.plan.read_bytes())
    records, written = plan["rows"] * _mean_record(paths), _size_of_journals(paths)
    left = max(0.0, 1 - written / records) if records else 0.0
    return int(left * (2 * records + 2 * plan["chunks"] * _CLAIM_BYTES)) + merge_need(paths)


def shortage(paths: RunPaths) -> str | None:
    """What to say of a run whose file system has not the room for its rest; None where it has.

    A stage that met a full disk could perhaps not even write why it ended.
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
    """Bytes that a merge writes at most, about: every record sorted, what was asked, and the report."""
    inputs = paths.data.stat().st_size if paths.data.exists() else 0
    return _size_of_journals(paths) + inputs + _PAGE_BYTES


def _size_of_journals(paths: RunPaths) -> int:
    return sum(path.stat().st_size for path in paths.journals())


def _mean_record(paths: RunPaths) -> float:
    """Bytes a record, by the first ones of the largest journal."""
    largest = max(paths.journals(), key=lambda path: path.stat().st_size, default=None)
    if largest is None:
        return _RECORD_BYTES
    with largest.open("rb") as file:
        sample = file.read(_SAMPLE_BYTES)
    lines = sample.count(b"\n")
    return (sample.rindex(b"\n") + 1) / lines if lines else max(_RECORD_BYTES, len(sample))
