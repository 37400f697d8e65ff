"""Files that are either whole or absent, on any shared file system.

Only three operations are relied on: exclusive create (`os.link` to a name, or O_EXCL), rename inside a folder, and
append by a single writer. No locks, no mmap writes: NFS, Lustre and GPFS break them. A full disk raises a DiskFullError
and leaves no partial file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from hpcjobs.run_folder.disk import disk_errors
from hpcjobs.run_folder.leftovers import own_mark
from hpcjobs.run_folder.trust import is_shared

Part = bytes | memoryview | str
Content = bytes | str | Iterable[Part]  # whole, or in parts that never are in memory together
FOLDER_MODE = 0o700
FILE_MODE = 0o600
# In a run of `run.shared: group`. Setgid: whatever is made below it has its group.
SHARED_FOLDER_MODE = 0o2770
SHARED_FILE_MODE = 0o660
_UMASK = "HPCJOBS_UMASK"
# Errors of file systems without hard links (some FUSE mounts, SMB, a few object stores).
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


def make_folder(path: Path) -> Path:
    """Create `path` and its parents with mode 0700, in a shared folder with its mode. An existing one stays as it is.
    """
    if not path.parent.is_dir():  # mkdir(parents=True) would give the parents the umask's mode
        make_folder(path.parent)
    with disk_errors(path), contextlib.suppress(FileExistsError):
        new_folder(path)
        return path
    path.mkdir(exist_ok=True)  # raises if it is a file
    return path


def new_folder(path: Path) -> None:
    """Create a folder that nobody else may enter, or only the group of a shared one. Raises a FileExistsError."""
    path.mkdir(mode=FOLDER_MODE)
    if is_shared(path.parent):
        path.chmod(SHARED_FOLDER_MODE)  # mkdir would leave out what the umask has


def open_file(path: Path, flags: int) -> int:
    """A handle on a file that is made if need be, as `new_folder` makes folders."""
    handle = os.open(path, flags | os.O_CREAT, FILE_MODE)
    if is_shared(path.parent):
        with contextlib.suppress(PermissionError):  # another user's, which has its mode
            os.fchmod(handle, SHARED_FILE_MODE)
    return handle


def hide(path: Path) -> None:
    """Let nobody else read a file or folder that a library has made, or only the group of a shared folder."""
    shared, is_folder = is_shared(path.parent), path.is_dir()
    if shared:
        path.chmod(SHARED_FOLDER_MODE if is_folder else SHARED_FILE_MODE)
    else:
        path.chmod(FOLDER_MODE if is_folder else FILE_MODE)


@contextlib.contextmanager
def private_umask(folder: Path) -> Iterator[None]:
    """Within the block, files that libraries and programs make are private, or the group's if `folder` is shared."""
    before = os.umask(0o007 if is_shared(folder) else 0o077)
    try:
        yield
    finally:
        os.umask(before)


def stay_private(folder: Path) -> None:
    """The same for the rest of this process and those that it starts; `user_umask` is the one before."""
    os.environ.setdefault(_UMASK, f"{os.umask(0o077):o}")
    os.umask(0o007 if is_shared(folder) else 0o077)


def user_umask() -> int:
    """The umask of the user, for programs of theirs; -1 (unchanged) where `stay_private` was not called."""
    return int(os.environ.get(_UMASK, "-1"), 8)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable (fsync)."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # some network file systems refuse fsync on folders; the data itself is synced
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def temporary_name(path: Path) -> Path:
    """A unique name beside `path` that shows which process made it (`leftovers.py`).

    Readers ignore names that start with a dot.
    """
    return path.with_name(f".{path.name}.{own_mark()}.{secrets.token_hex(6)}.tmp")


def write_all(handle: int, data: bytes | memoryview) -> None:
    """Write every byte. `os.write` may write fewer, for example on a nearly full disk."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _write_temporary(path: Path, data: Content) -> Path:
    parts: Iterable[Part] = [data] if isinstance(data, bytes | str) else data
    size, temporary = len(data) if isinstance(data, bytes | str) else 0, temporary_name(path)
    with disk_errors(path, size):
        handle = open_file(temporary, os.O_WRONLY | os.O_EXCL)
        try:
            for part in parts:
                write_all(handle, part.encode() if isinstance(part, str) else part)
            os.fsync(handle)  # where some network file systems first tell that they are full
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)
    return temporary


def write_whole(path: Path, data: Content) -> None:
    """Replace `path` with `data` atomically: a reader sees the old file or the new one, whole."""
    replace_whole(_write_temporary(path, data), path)


def replace_whole(temporary: Path, path: Path) -> None:
    """Rename a finished temporary file to `path`, durably."""
    with disk_errors(path):
        try:
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON, by `write_whole`."""
    write_whole(path, json_text(value))


def json_text(value: object) -> str:
    """`value` as indented JSON. Raises a ValueError for NaN and infinities."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


class FileTransaction:
    """Files that are replaced together: all at the end of the block, none if the block raises."""

    def __init__(self) -> None:
        self._made: list[tuple[Path, Path]] = []
        self._kept = False

    def keep(self) -> None:
        """Let the files stay as they are: those that were written are removed at the end."""
        self._kept = True

    def write(self, path: Path, data: Content) -> None:
        """Write `data` to a temporary file, to be renamed to `path` at the end."""
        self.add(_write_temporary(path, data), path)

    def add(self, temporary: Path, path: Path) -> None:
        """Let a temporary file that is written be renamed to `path` at the end."""
        self._made.append((temporary, path))

    def _replace(self, made: list[tuple[Path, Path]]) -> None:
        """Rename the files; what is done leaves the list."""
        while made:
            replace_whole(*made.pop(0))

    def __enter__(self) -> FileTransaction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not kind and not self._kept:
                self._replace(self._made)
        finally:
            for temporary, _ in self._made:
                temporary.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """The JSON value in `path`. Raises what `open` and `json.loads` raise."""
    return json.loads(path.read_bytes())


def create_once(path: Path, data: bytes | str) -> bool:
    """Create `path` whole; False if it exists already. Of several creators exactly one gets True.

    A hard link is atomic on NFS too and never shows half a file. If the reply to a link is lost, the link count tells
    who created it: the name itself may not show yet.
    """
    temporary = _write_temporary(path, data)
    try:
        with disk_errors(path):
            return _link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def name_once(source: Path, path: Path, otherwise: str) -> bool:
    """Let `path` be a second name of the file `source`, which is never changed; False if there is a `path` already.

    As `create_once`, but nothing is written, and there is no new file: many clusters limit their number. Without
    `source` or hard links `path` is created with the content `otherwise`.
    """
    try:
        with disk_errors(path):
            os.link(source, path)
    except FileExistsError:
        return _same_file(source, path)
    except OSError as error:
        if error.errno not in {*_NO_LINKS, errno.ENOENT}:
            raise
        return create_once(path, otherwise)
    return True


def _link(temporary: Path, path: Path) -> bool:
    try:
        os.link(temporary, path)
    except FileExistsError:
        # NFS may repeat a request that had succeeded: two names on our file means that we are the creator.
        return os.stat(temporary).st_nlink == 2
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _create_exclusive(temporary, path)
    return True


def _same_file(source: Path, path: Path) -> bool:
    """Whether both are names of one file; False where one does not show, as another machine has made it just now."""
    try:
        return os.path.samefile(source, path)
    except FileNotFoundError:
        return False


def _create_exclusive(temporary: Path, path: Path) -> bool:
    """Create without hard links: O_EXCL decides who wins. A reader may see an unfinished file and must read again.

    A full disk, like a crash in between, leaves an empty file: others may have seen it already.
    """
    try:
        handle = open_file(path, os.O_WRONLY | os.O_EXCL)
    except FileExistsError:
        return False
    try:
        write_all(handle, temporary.read_bytes())
        os.fsync(handle)
    except OSError:
        os.ftruncate(handle, 0)
        raise
    finally:
        os.close(handle)
    return True
