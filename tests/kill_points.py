"""Run a command in a child process, and end it by SIGKILL at one of the operations by which it changes the world.

An operation is a file that is created, written, synced, renamed, linked or removed under `root`, a folder made there,
or a program that is started. The child is ended before the operation with a given number; before the next one is after
it. For programs the moment right after the start is an operation of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.runs import finish, start_process

_CHANGES = {"os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "os.symlink", "os.truncate"}
_WRITING = os.O_CREAT | os.O_WRONLY | os.O_RDWR


@dataclass
class _Shim:
    """Counts operations in this process, and ends it at the one with number `at`."""

    root: str
    at: int
    seen: list[str] = field(default_factory=list)

    def step(self, what: str) -> None:
        if len(self.seen) == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen.append(what)

    def inside(self, path: object) -> bool:
        return isinstance(path, str | bytes | os.PathLike) and os.path.abspath(os.fsdecode(path)).startswith(self.root)

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and len(args) == 3 and isinstance(args[2], int):
            if args[2] & _WRITING and self.inside(args[0]):
                self.step(f"open {args[0]}")
        elif event in _CHANGES and self.inside(args[0]):
            self.step(f"{event} {args[0]}")
        elif event == "subprocess.Popen":
            self.step(f"start {args[0]}")

    def on_handle(self, name: str) -> Callable[..., Any]:
        call = getattr(os, name)

        def counted(handle: int, *more: Any) -> Any:
            with contextlib.suppress(OSError):
                if self.inside(path := os.readlink(f"/proc/self/fd/{handle}")):
                    self.step(f"{name} {path}")
            return call(handle, *more)

        return counted

    def after_start(self) -> Callable[..., None]:
        begin = subprocess.Popen.__init__

        def counted(popen: Any, *args: Any, **options: Any) -> None:
            begin(popen, *args, **options)
            self.step("started")

        return counted


def _child(root: str, at: int, words: list[str], told: str, env: dict[str, str]) -> None:
    from hpcjobs.cli.app import main

    os.environ.clear()
    os.environ.update(env)
    os.chdir(root)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(null), "w") for _ in range(2))
    shim = _Shim(root, at)
    sys.addaudithook(shim.hook)
    for name in ("write", "fsync"):
        setattr(os, name, shim.on_handle(name))
    setattr(subprocess.Popen, "__init__", shim.after_start())  # noqa: B010
    code = main(words)
    shim.at = -1
    Path(told).write_text("\n".join([str(code), *shim.seen]))
    os._exit(0)


# In the environment of what such a command starts: its root.
MARK = "HPCJOBS_TEST_OF_KILLS"


def operations(root: Path, words: list[str], told: Path) -> tuple[int, list[str]]:
    """The exit code of `hpcjobs words`, and its operations, one text each."""
    env = dict(os.environ) | {MARK: str(root)}
    assert finish(start_process(_child, str(root), -1, words, str(told), env)) == 0
    code, *seen = told.read_text().splitlines()
    return int(code), seen


def killed_at(root: Path, at: int, words: list[str], told: Path) -> bool:
    """Whether `hpcjobs words` was ended before its operation `at`; False if it had fewer."""
    env = dict(os.environ) | {MARK: str(root)}
    return finish(start_process(_child, str(root), at, words, str(told), env)) == -signal.SIGKILL
