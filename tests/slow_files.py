"""A slow shared file system, for rank processes: renames and links take long, and what others make shows late.

Of another process's file each process knows nothing for a while after it has first looked for it: not by stat, not
by open, not in a listing. Creating the name fails all the same (the server knows). That is what caches of names on
NFS do. Such caches are a machine's: here each process is on a machine of its own.
"""

from __future__ import annotations

import builtins
import io
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hpcjobs.run_folder.paths import RunPaths
from tests.runs import rank_main

BOOT_ID = "/proc/sys/kernel/random/boot_id"


class SlowFiles:
    """Patches this process's `os` and `open` for all below `folder`; `delay` is the longest of each wait (s).

    What is older than `since` (Unix seconds, default: now) it sees at once.
    """

    def __init__(self, folder: Path, delay: float, seed: int, since: float | None = None) -> None:
        self._folder, self._delay, self._random = str(folder), delay, random.Random(seed)
        self._start, self._own = time.time() if since is None else since, set[str]()
        self._boot_id = folder / "logs" / f"boot-{os.getpid()}.txt"
        self._boot_id.write_text(str(self._boot_id))
        self._shows_at: dict[str, float] = {}
        self.hidden = 0

    def install(self) -> None:
        for module, name in [(os, "stat"), (os, "lstat"), (os, "open"), (io, "open"), (builtins, "open")]:
            setattr(module, name, self._looking(getattr(module, name)))
        os.link = self._naming(os.link)
        os.replace = self._naming(os.replace)
        os.mkdir = self._making(os.mkdir)
        os.scandir = self._listing(os.scandir)
        self._stat: Callable[[str], os.stat_result] = os.stat.__wrapped__  # type: ignore[attr-defined]

    def _name(self, path: Any) -> str | None:
        if not isinstance(path, str | os.PathLike):
            return None
        name = os.path.abspath(os.fspath(path))
        return name if name.startswith(self._folder + os.sep) else None

    def _is_hidden(self, name: str) -> bool:
        """Whether this process does not see a file yet that is there."""
        if name in self._own:
            return False
        if name not in self._shows_at:
            try:
                if self._stat(name).st_ctime < self._start:
                    return False  # older than this process, which has no cache of it
            except OSError:
                return False
            self._shows_at[name] = time.monotonic() + self._random.uniform(0, self._delay)
        hidden = time.monotonic() < self._shows_at[name]
        self.hidden += hidden
        return hidden

    def _looking(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def look(path: Any, *args: Any, **kwargs: Any) -> Any:
            if str(path) == BOOT_ID:
                path = self._boot_id
            name = self._name(path)
            flags = args[0] if args else kwargs.get("mode", 0)
            creates = bool(flags & os.O_CREAT) if isinstance(flags, int) else set(flags) & set("wax")
            if name and not creates and path is not self._boot_id and self._is_hidden(name):
                raise FileNotFoundError(2, "No such file or directory", name)
            result = real(path, *args, **kwargs)
            if name and creates:
                self._own.add(name)
            return result

        look.__wrapped__ = real  # type: ignore[attr-defined]
        return look

    def _naming(self, real: Callable[..., None]) -> Callable[..., None]:
        def name_it(source: Any, target: Any, **kwargs: Any) -> None:
            time.sleep(self._random.uniform(0, self._delay / 10))
            real(source, target, **kwargs)
            if name := self._name(target):
                self._own.add(name)

        return name_it

    def _making(self, real: Callable[..., None]) -> Callable[..., None]:
        def make(path: Any, *args: Any, **kwargs: Any) -> None:
            real(path, *args, **kwargs)
            if name := self._name(path):
                self._own.add(name)

        return make

    def _listing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        slow = self

        class Listing:
            def __init__(self, path: Any = ".") -> None:
                self._entries = real(path)

            def __enter__(self) -> Listing:
                return self

            def __exit__(self, *_: object) -> None:
                self._entries.close()

            def __iter__(self) -> Iterator[os.DirEntry[str]]:
                return (e for e in self._entries if not ((n := slow._name(e.path)) and slow._is_hidden(n)))

            def __next__(self) -> os.DirEntry[str]:
                return next(iter(self))

            def close(self) -> None:
                self._entries.close()

        return Listing


def slow_rank_main(run: str, env: dict[str, str], delay: float) -> None:
    """`rank_main` on a slow file system."""
    slow = SlowFiles(Path(run), delay, int(env["RANK"]))
    slow.install()
    try:
        rank_main(run, env)
    finally:
        Path(run, "logs", f"hidden-{env['RANK']}.txt").write_text(str(slow.hidden))


def slow_merge_main(run: str, delay: float) -> None:
    """Merge on a machine that has seen nothing yet of what the ranks made; ends as `hpcjobs merge` does."""
    from hpcjobs.merge.eval import merge

    paths = RunPaths(Path(run))
    SlowFiles(paths.root, delay, 0, since=paths.plan.stat().st_mtime + 0.01).install()
    sys.exit(0 if merge(paths).complete else 3)
