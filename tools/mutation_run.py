"""Runs tests of a copy of the repository in forked processes, so that libraries are imported once for all mutants."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = (
    "numpy", "pyarrow.parquet", "torch", "transformers", "datasets", "hypothesis", "sacrebleu",
    "rouge_score.rouge_scorer", "scipy.stats", "pydantic", "jinja2", "typer",
)  # fmt: skip
QUICK = "not slow and not slurm and not real"
LEAST_SECONDS = 15.0
Files = dict[str, list[int]]


@dataclass(frozen=True)
class Test:
    """A test that passes on the code as it is: how long it takes, and which lines of which files it runs."""

    seconds: float
    files: Files


class Runner:
    """Forks tests in `folder`, a copy of the repository whose files are changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stamp = time.time_ns()

    def write(self, path: str, text: str) -> None:
        """Put text into a file of the copy, and let no compiled file of an earlier text count for it."""
        file = self.folder / path
        file.write_text(text, encoding="utf-8")
        self._stamp += 2_000_000_000
        os.utime(file, ns=(self._stamp, self._stamp))

    def record(self, paths: Sequence[str], tests: Sequence[str]) -> dict[str, Test]:
        """The quick tests of files or folders that pass, each with the lines of `paths` that it runs.

        One that fails without a mutant, as on a busy machine, has a second try, alone; then it is named and left out.
        """
        passed, failed = self._record(paths, tests)
        again, failed = self._record(paths, failed) if failed else ({}, failed)
        for name in failed:
            print(f"left out, it fails without a mutant: {name}", flush=True)
        return passed | again

    def _record(self, paths: Sequence[str], tests: Sequence[str]) -> tuple[dict[str, Test], list[str]]:
        found = self.folder / "recorded.json"
        end = self._fork(lambda: _pytest([*tests, "-m", QUICK], _Recorder(found, self.folder, paths)), 3600)
        if end not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
            sys.exit(f"the tests cannot run without a mutant (pytest ends with {end}):\n{self._said()}")
        passed, failed = json.loads(found.read_text(encoding="utf-8"))
        return {name: Test(*each) for name, each in passed.items()}, failed

    def fails(self, chosen: dict[str, Test], patience: int = 1) -> str | None:
        """How the first of the tests that does fails, in the order given, or None if all pass. They have four times as
        long as they took, and `patience` times that.
        """
        files = list(dict.fromkeys(name.partition("::")[0] for name in chosen))
        limit = patience * (LEAST_SECONDS + 4 * sum(test.seconds for test in chosen.values()))
        end = self._fork(lambda: _pytest([*files, "-m", QUICK, "-x"], _Chosen(list(chosen))), limit)
        if end == pytest.ExitCode.NO_TESTS_COLLECTED:
            sys.exit(f"none of {list(chosen)[:3]} is there")
        return None if end == 0 else "timeout" if end is None else "failed"

    def _said(self) -> str:
        return (self.folder / "said.txt").read_text(encoding="utf-8", errors="replace")[-4000:]

    def _fork(self, run: Callable[[], int], limit: float) -> int | None:
        """The exit code of `run` in a forked process group, or None if it took longer than `limit` seconds."""
        child = os.fork()
        if child == 0:
            _in_child(self.folder, run)
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                _kill_group(child)
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        _kill_group(child)
        os.waitpid(child, 0)
        return None


@contextlib.contextmanager
def runner() -> Iterator[Runner]:
    """A runner on a copy of the repository, in memory where there is one, with the libraries imported."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="hpcjobs-mutants-", dir=memory if memory.is_dir() else None) as name:
        folder = Path(name) / "repo"
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        for file in listed.stdout.splitlines():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / file).is_file():
                shutil.copy2(ROOT / file, folder / file)
        os.environ |= {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "TMPDIR": name}
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        sys.path[:0] = [str(folder)]
        _import_libraries()
        yield Runner(folder)


def _import_libraries() -> None:
    for library in HEAVY:
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    assert "hpcjobs" not in sys.modules


def _in_child(folder: Path, run: Callable[[], int]) -> None:
    end = 70
    try:
        os.setsid()
        os.chdir(folder)
        said = os.open(folder / "said.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(said, stream)
        end = run()
    finally:
        sys.stdout.flush()
        os._exit(end)


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _pytest(arguments: Sequence[str], plugin: object) -> int:
    options = ["-q", "-p", "no:xdist", "-p", "no:cacheprovider", "--hypothesis-seed=0", "--basetemp=../made"]
    return int(pytest.main([*options, *arguments], plugins=[plugin]))


class _Chosen:
    """Keeps the named tests, in their order."""

    def __init__(self, names: Sequence[str]) -> None:
        self._order = {name: place for place, name in enumerate(names)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((item for item in items if item.nodeid in self._order), key=lambda x: self._order[x.nodeid])


class _Recorder:
    """Writes the tests that pass, each with its seconds and the lines of the files that it ran, in this process; and
    those that fail.
    """

    def __init__(self, found: Path, folder: Path, paths: Sequence[str]) -> None:
        self._found, self._tests = found, dict[str, tuple[float, Files]]()
        self._paths = {str(folder / path): path for path in paths}
        self._lines, self._failed = dict[str, set[int]](), dict[str, None]()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed[report.nodeid] = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self._lines, begin = {}, time.monotonic()
        threading.settrace(self._enter)
        sys.settrace(self._enter)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            files = {self._paths[file]: sorted(lines) for file, lines in self._lines.items()}
            self._tests[item.nodeid] = (time.monotonic() - begin, files)

    def pytest_sessionfinish(self) -> None:
        passed = {name: each for name, each in self._tests.items() if name not in self._failed}
        self._found.write_text(json.dumps([passed, list(self._failed)]), encoding="utf-8")

    def _enter(self, frame: FrameType, event: str, arg: object) -> Callable[..., Any] | None:
        lines = self._lines.setdefault(frame.f_code.co_filename, set()) if self._ours(frame) else None
        if lines is None:
            return None

        def step(frame: FrameType, event: str, arg: object) -> Callable[..., Any]:
            lines.add(frame.f_lineno)
            return step

        return step(frame, event, arg)

    def _ours(self, frame: FrameType) -> bool:
        return frame.f_code.co_filename in self._paths
