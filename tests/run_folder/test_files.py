from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import platform
import resource
import signal
import stat
import struct
import sys
import termios
from pathlib import Path

import pytest

from hpcjobs.run_folder.files import (
    FileTransaction,
    _create_exclusive,
    _link,
    create_once,
    hide,
    json_text,
    make_folder,
    name_once,
    open_file,
    private_umask,
    read_json,
    replace_whole,
    sha256_of,
    stay_private,
    sync_folder,
    temporary_name,
    user_umask,
    write_all,
    write_json,
    write_whole,
)
from tests.runs import finish, start_process, wait_for

RACERS, NAMES = 6, 60
# Numbers of (link, linkat) by machine, for a kernel filter that answers as a file system without hard links.
LINK_CALLS = {"x86_64": (86, 265), "aarch64": (37,)}


def payload(racer: int) -> bytes:
    return f"{racer};".encode() * 20_000


def forbid_links() -> None:
    """From now on the kernel answers EPERM to this process's link calls (seccomp(2), a classic BPF program)."""
    load, equal, give, allow = 0x20, 0x15, 0x06, 0x7FFF0000
    lines = [(load, 0, 0, 0)]
    for number in LINK_CALLS[platform.machine()]:
        lines += [(equal, 0, 1, number), (give, 0, 0, 0x00050000 | errno.EPERM)]
    program = b"".join(struct.pack("HBBI", *line) for line in [*lines, (give, 0, 0, allow)])
    buffer = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, ctypes.create_string_buffer(header)) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def race(folder: str, racer: int, links: bool) -> None:
    if not links:
        forbid_links()
        with pytest.raises(PermissionError):
            os.link(f"{folder}/go", f"{folder}/linked")
    Path(folder, f"ready-{racer}").touch()
    wait_for(Path(folder, "go").exists, "the start")
    won = [number for number in range(NAMES) if create_once(Path(folder, f"name-{number}"), payload(racer))]
    Path(folder, f"won-{racer}").write_text(json.dumps(won))


@pytest.mark.parametrize("links", [True, False], ids=["links", "without links"])
def test_racing_creators_have_one_winner_and_whole_content(ram: Path, links: bool) -> None:
    if not links and platform.machine() not in LINK_CALLS:
        pytest.skip("the numbers of the link calls of this machine are not known here")
    racers = [start_process(race, str(ram), racer, links) for racer in range(RACERS)]
    wait_for(lambda: len(list(ram.glob("ready-*"))) == RACERS, "all racers")
    (ram / "go").touch()
    assert [finish(process) for process in racers] == [0] * RACERS
    winners: dict[int, list[int]] = {number: [] for number in range(NAMES)}
    for racer in range(RACERS):
        for number in json.loads((ram / f"won-{racer}").read_text()):
            winners[number].append(racer)
    assert all(len(won) == 1 for won in winners.values())
    assert all((ram / f"name-{number}").read_bytes() == payload(won[0]) for number, won in winners.items())
    assert not list(ram.glob(".*"))


def test_the_second_creator_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    assert create_once(path, "first")
    assert not create_once(path, "second")
    assert path.read_text() == "first"
    assert os.listdir(tmp_path) == ["claim"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_exclusive_create_is_what_decides_without_links(tmp_path: Path) -> None:
    mine, theirs, path = tmp_path / "mine", tmp_path / "theirs", tmp_path / "claim"
    mine.write_bytes(b"m" * 100_000)
    theirs.write_bytes(b"t")
    assert _create_exclusive(mine, path)
    assert not _create_exclusive(theirs, path)
    assert path.read_bytes() == mine.read_bytes()


def test_a_link_whose_reply_was_lost_is_known_by_its_count(tmp_path: Path) -> None:
    mine, theirs, path = tmp_path / "mine", tmp_path / "theirs", tmp_path / "claim"
    mine.touch()
    theirs.touch()
    os.link(mine, path)
    assert _link(mine, path), "NFS repeats a request that had succeeded: we are the creator"
    assert not _link(theirs, path)


def test_an_error_of_the_disk_is_not_taken_for_a_lost_race(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        create_once(tmp_path / "gone" / "claim", "text")


def write_for_ever(path: str) -> None:
    while True:
        for letter in b"abcdef":
            write_whole(Path(path), bytes([letter]) * (1 << 20))


def test_a_killed_writer_leaves_the_old_file_or_the_new_one(ram: Path) -> None:
    path, seen = ram / "file", set()
    write_whole(path, b"a" * (1 << 20))
    for kill in range(4):
        writer, before = start_process(write_for_ever, str(path)), path.stat().st_ino
        wait_for(lambda before=before: path.stat().st_ino != before, "the writer")  # type: ignore[misc]
        for _ in range(60 + 7 * kill):
            content = path.read_bytes()
            assert content == content[:1] * (1 << 20)
            seen.add(content[:1])
        os.kill(writer.pid or 0, signal.SIGKILL)
        assert finish(writer) == -signal.SIGKILL
        assert path.read_bytes() == path.read_bytes()[:1] * (1 << 20)
    assert len(seen) > 1, "the reader never met another version: nothing was shown"
    assert {name.name for name in ram.iterdir() if not name.name.startswith(".")} == {"file"}


def write_beyond_limit(path: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    with pytest.raises(OSError, match="File too large"):
        write_whole(Path(path), b"n" * 10_000)


def test_a_disk_that_takes_only_a_part_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, "old")
    assert finish(start_process(write_beyond_limit, str(path))) == 0
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def write_interrupted(fifo: str, size: int) -> None:
    signal.signal(signal.SIGUSR1, lambda *_: Path(f"{fifo}.rang").touch())
    handle = os.open(fifo, os.O_WRONLY)
    write_all(handle, b"w" * size)
    os.close(handle)


def test_write_all_goes_on_after_a_short_write(tmp_path: Path) -> None:
    """A signal ends a blocked write to a full pipe early: the kernel has taken a part of the bytes."""
    fifo, size = tmp_path / "fifo", 300_000
    os.mkfifo(fifo)
    writer = start_process(write_interrupted, str(fifo), size)
    with fifo.open("rb") as file:
        room = fcntl.fcntl(file, 1032)  # F_GETPIPE_SZ
        assert 0 < room < size
        wait_for(lambda: waiting_bytes(file.fileno()) == room, "a full pipe")
        os.kill(writer.pid or 0, signal.SIGUSR1)
        wait_for(Path(f"{fifo}.rang").exists, "the signal's handler")
        assert file.read() == b"w" * size
    assert finish(writer) == 0


def waiting_bytes(handle: int) -> int:
    answer = fcntl.ioctl(handle, termios.FIONREAD, b"\0" * 4)
    return int.from_bytes(answer, sys.byteorder)


def test_what_cannot_be_replaced_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        write_whole(tmp_path / "folder", "text")
    (tmp_path / "made").write_text("text")
    with pytest.raises(OSError, match="folder"):
        replace_whole(tmp_path / "made", tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"]


def test_json_comes_back_and_is_refused_where_it_would_not(tmp_path: Path) -> None:
    path, value = tmp_path / "file.json", {"text": "né\u0085\0", "none": None, "list": [1, 2.5]}
    write_json(path, value)
    assert read_json(path) == value
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"value": float("nan")})
    assert read_json(path) == value
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_every_new_folder_is_private(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b" / "c")
    make_folder(tmp_path / "a" / "b")
    for folder in ("a", "a/b", "a/b/c"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o700


def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of the disk, in order: syncs of files and folders, renames, links."""
    calls, sync, rename, link = list[str](), os.fsync, os.replace, os.link

    def fsync(handle: int) -> None:
        calls.append("sync folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "sync file")
        sync(handle)

    def replaced(source: Path, target: Path) -> None:
        calls.append("rename")
        rename(source, target)

    def linked(source: Path, target: Path) -> None:
        calls.append("link")
        link(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(os, "link", linked)
    return calls


def test_content_is_durable_before_its_name_and_the_name_at_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, open_before = called(monkeypatch), len(os.listdir("/proc/self/fd"))
    parts: list[bytes | str] = [b"x", "é"]
    write_whole(tmp_path / "a", iter(parts))
    assert (calls, (tmp_path / "a").read_text()) == (["sync file", "rename", "sync folder"], "xé")
    calls.clear()
    assert create_once(tmp_path / "b", "content")
    assert calls == ["sync file", "link"]
    calls.clear()
    assert _create_exclusive(tmp_path / "a", tmp_path / "c")
    assert (calls, (tmp_path / "c").read_text()) == (["sync file"], "xé")
    assert len(os.listdir("/proc/self/fd")) == open_before, "a file is still open"
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]


@pytest.mark.parametrize(("number", "fine"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)])
def test_a_folder_that_cannot_be_synced_is_no_error_and_a_disk_error_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, fine: bool
) -> None:
    def refuse(handle: int) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(os, "fsync", refuse)
    before = len(os.listdir("/proc/self/fd"))
    with contextlib.nullcontext() if fine else pytest.raises(OSError, match="no"):
        sync_folder(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("end", ["done", "kept", "raised"])
def test_files_are_replaced_together_or_not_at_all(tmp_path: Path, end: str) -> None:
    (tmp_path / "a").write_text("old")
    with contextlib.suppress(RuntimeError), FileTransaction() as files:
        files.write(tmp_path / "a", "new")
        files.write(tmp_path / "b", b"new")
        assert ((tmp_path / "a").read_text(), (tmp_path / "b").exists()) == ("old", False)
        if end == "kept":
            files.keep()
        if end == "raised":
            raise RuntimeError
    assert sorted(os.listdir(tmp_path)) == (["a", "b"] if end == "done" else ["a"])
    assert (tmp_path / "a").read_text() == ("new" if end == "done" else "old")


def test_a_file_that_cannot_be_renamed_leaves_none_behind(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(IsADirectoryError):
        write_together(*(tmp_path / name for name in "abc"))
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def write_together(*paths: Path) -> None:
    with FileTransaction() as files:
        for path in paths:
            files.write(path, "new")


@pytest.mark.parametrize("number", [None, errno.EPERM, errno.ENOTSUP, errno.EIO])
def test_a_second_name_is_given_once_or_the_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    source, path, other = (tmp_path / name for name in ("source", "path", "other"))
    for file in (source, other):
        file.write_text("same")

    def refuse(source: Path, target: Path) -> None:
        raise OSError(number, "no links")

    if number is not None:
        monkeypatch.setattr(os, "link", refuse)
    if number == errno.EIO:
        with pytest.raises(OSError, match="no links"):
            name_once(source, path, "otherwise")
        return
    assert name_once(source, path, "otherwise")
    assert (path.read_text(), path.samefile(source)) == (("same", True) if number is None else ("otherwise", False))
    assert name_once(other, path, "otherwise") is False
    assert name_once(source, path, "otherwise") is (number is None), "the reply to our own link was lost"
    assert name_once(tmp_path / "gone", tmp_path / "new", "otherwise")
    assert (tmp_path / "new").read_text() == "otherwise"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[False, True], ids=["private", "shared"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, bool]:
    """A folder of one user or of its group, and which."""
    made = tmp_path / "run"
    made.mkdir()
    made.chmod(0o2770 if request.param else 0o700)
    return made, bool(request.param)


def test_what_is_made_is_for_the_user_or_for_the_group(folder: tuple[Path, bool]) -> None:
    place, shared = folder
    before = os.umask(0o077)
    try:
        make_folder(place / "a" / "b")
        write_whole(place / "a" / "file", "text")
        assert create_once(place / "claim", "text")
        assert _create_exclusive(place / "claim", place / "other")
    finally:
        os.umask(before)
    assert {mode(place / name) for name in ("a", "a/b")} == {0o2770 if shared else 0o700}
    assert {mode(place / name) for name in ("a/file", "claim", "other")} == {0o660 if shared else 0o600}


def test_what_a_library_made_is_hidden_after(folder: tuple[Path, bool]) -> None:
    place, shared = folder
    (place / "file").touch(0o777)
    (place / "inner").mkdir(0o777)
    for name in ("file", "inner"):
        (place / name).chmod(0o777)
        hide(place / name)
    assert (mode(place / "file"), mode(place / "inner")) == ((0o660, 0o2770) if shared else (0o600, 0o700))


def test_what_libraries_make_within_a_block_is_private(folder: tuple[Path, bool]) -> None:
    place, shared = folder
    before = os.umask(0o022)
    try:
        with contextlib.suppress(RuntimeError), private_umask(place):
            (place / "within").touch()
            raise RuntimeError
        (place / "after").touch()
    finally:
        os.umask(before)
    assert (mode(place / "within"), mode(place / "after")) == (0o660 if shared else 0o600, 0o644)


def test_a_process_stays_private_and_knows_the_umask_of_the_user(
    folder: tuple[Path, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, shared = folder
    monkeypatch.setenv("HPCJOBS_UMASK", "")  # restored after
    monkeypatch.delenv("HPCJOBS_UMASK")
    assert user_umask() == -1, "unchanged"
    before = os.umask(0o026)
    try:
        stay_private(place)
        (place / "within").touch()
        stay_private(place)
        assert os.umask(0) == (0o007 if shared else 0o077)
    finally:
        os.umask(before)
    assert (os.environ["HPCJOBS_UMASK"], user_umask()) == ("26", 0o026)
    assert mode(place / "within") == (0o660 if shared else 0o600)


def test_a_file_of_another_member_of_the_group_is_opened_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o2770)
    (tmp_path / "theirs").write_text("old")

    def refuse(handle: int, mode: int) -> None:
        raise PermissionError(errno.EPERM, "not yours")

    monkeypatch.setattr(os, "fchmod", refuse)
    handle = open_file(tmp_path / "theirs", os.O_WRONLY | os.O_APPEND)
    write_all(handle, memoryview(b" new"))
    os.close(handle)
    assert (tmp_path / "theirs").read_text() == "old new"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "file")
    assert make_folder(tmp_path / "a") == make_folder(tmp_path / "a") == tmp_path / "a"


def test_temporary_names_are_hidden_and_never_the_same(tmp_path: Path) -> None:
    names = {temporary_name(tmp_path / "plan.json") for _ in range(50)}
    assert len(names) == 50
    for name in names:
        assert (name.parent, name.name.startswith(".plan.json."), name.suffix) == (tmp_path, True, ".tmp")
        assert len(name.stem.rpartition(".")[2]) == 12, "48 bits: two of as many files as there are meet never"


def test_json_is_indented_and_keeps_letters_and_hashes_are_those_of_the_bytes(tmp_path: Path) -> None:
    assert json_text({"a": ["é", None]}) == '{\n  "a": [\n    "é",\n    null\n  ]\n}\n'
    write_json(tmp_path / "file", "é")
    assert (tmp_path / "file").read_bytes() == '"é"\n'.encode()
    assert sha256_of(tmp_path / "file") == hashlib.sha256('"é"\n'.encode()).hexdigest()


def test_what_could_not_be_written_under_its_name_is_left_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may have seen the name already, and take an empty file for a claim that is not whole."""
    (tmp_path / "mine").write_text("content")

    def refuse(handle: int) -> None:
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(os, "fsync", refuse)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="no"):
        _create_exclusive(tmp_path / "mine", tmp_path / "claim")
    assert (tmp_path / "claim").read_bytes() == b""
    with pytest.raises(OSError, match="no"):
        write_whole(tmp_path / "file", "text")
    assert sorted(os.listdir(tmp_path)) == ["claim", "mine"]
    assert len(os.listdir("/proc/self/fd")) == before, "a file is still open"
