"""One call of a function: its output to its files, its outcome to its file, its state saved where it is interrupted."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

from submitit.core import utils
from submitit.core.logger import get_logger

from hpcjobs.run_folder.calls import Calls, call_files, end_call, outcome_of
from hpcjobs.run_folder.files import open_file
from hpcjobs.run_folder.paths import RunPaths

# Kept of a message; the whole traceback is in the outcome.
_MOST_WORDS = 2000
_LOOK = 0.2
# How much earlier than asked Slurm may send a warning: a minute, and it checks time limits once a minute (seconds).
_EARLY = 75.0
# What ends a process whose call has reached its limit and did not leave.
TIMED_OUT = 124
# What a process says to its rank when a call begins.
BEGUN = b"begun"


@dataclass(frozen=True, kw_only=True)
class End:
    """How a call has ended in this process.

    `outcome` is None if it has left before its end, to go on later; `message` is the signal then that it has left for,
    empty at its time limit.
    """

    outcome: str | None
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Which call to run: task `number` of its job. `ends_at`: when its job ends (Unix time), if that is for this call
    alone.
    """

    index: int
    job_id: str
    number: int = 0
    ends_at: float | None = None


class _Left(BaseException):
    """The call leaves: its function is unwound as by sys.exit. Not an Exception, which functions often catch."""


class _Leave:
    """Lets a call leave when it is warned (USR2, SIGTERM) or its time is nearly over, with its state saved.

    As submitit does: a function with `checkpoint` says what to run next time, and any other starts anew, unless it was
    out of time. Task 0 saves; the others wait until it has, as it may need them.
    """

    def __init__(self, calls: Calls, task: Task, call: utils.DelayedSubmission, path: Path) -> None:
        self._facts, self._calls, self._task, self._call, self._path = calls.facts, calls, task, call, path
        self._began, self._late, self._saved = time.monotonic(), False, calls.saved(task.index)
        self.over = self.left = False
        self.reason: str | None = None
        self.by, self._pid = "", os.getpid()

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The signal handler. Raises _Left, once."""
        if os.getpid() != self._pid:  # a child that the function has forked: the call is not its own
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        if self.over or self.reason is not None:
            return
        late, self.reason = self._is_late(), ""
        self.by = "" if late else signal.Signals(number).name
        get_logger().warning(f"{signal.Signals(number).name}: this call is {'timed-out' if late else 'preempted'}")
        if self._task.number:
            self._await_first()
        else:
            self.reason = self._save(late)
        self.left = True
        raise _Left

    def _is_late(self) -> bool:
        """Whether it is the time limit for which this call is warned, and not a preemption."""
        ends, warning = self._task.ends_at, self._facts.warning
        if self._late or time.monotonic() - self._began > self._facts.seconds - warning:
            return True
        return ends is not None and ends - time.time() < warning + _EARLY

    def _save(self, late: bool) -> str:
        """Save the call; what is returned says why it does not go on, empty if it does."""
        left = self._call._timeout_countdown - late
        if left < 0:
            return "timed-out too many times"
        if not self._can_save:
            return "timed-out and not checkpointable" if late else ""
        get_logger().info("Calling checkpoint method.")
        found = self._call._checkpoint_function()
        if found is None:
            return "checkpoint function returned None"
        found.set_timeout(self._call._timeout_min, left)
        self._calls.save(self._task.index, found)
        get_logger().info(f"Requeued job {self._task.job_id} ({left} remaining timeouts)")
        return ""

    @property
    def _can_save(self) -> bool:
        function = self._call.function
        return hasattr(function, "checkpoint") or hasattr(function, "__submitit_checkpoint__")

    def _await_first(self) -> None:
        """Wait until task 0 has saved, or ended."""
        first = self._path.with_name(self._path.name.replace(f"_{self._task.number}_result", "_0_result"))
        ends = time.monotonic() + self._facts.warning * self._can_save
        while self._calls.saved(self._task.index) == self._saved and time.monotonic() < ends and not first.exists():
            time.sleep(_LOOK)

    def look(self) -> None:
        """From the watching thread: warn the call before its limit, and end this process where it is still here then.
        """
        ran = time.monotonic() - self._began
        if not self._late and ran > self._facts.seconds - self._facts.warning:
            self._late = True
            os.kill(os.getpid(), signal.SIGUSR2)
        if ran > self._facts.seconds and not self.over:
            why = f"timed-out: it ran for more than {self._facts.seconds / 60:g} min (timeout_min)"
            with contextlib.suppress(Exception):
                end_call(self._path, "uncompleted", why)
            os._exit(TIMED_OUT)


class TimeLimit:
    """The thread that looks after the time limit of the call that runs in this process.

    `began` is called when a call has been unpickled, with all that it imports, and its time begins.
    """

    def __init__(self, began: Callable[[], object] = lambda: None) -> None:
        self.call: _Leave | None = None
        self.began = began
        threading.Thread(target=self._watch, name="time limit", daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(_LOOK)
            if (call := self.call) and not call.over:
                call.look()


def run_call(paths: RunPaths, calls: Calls, task: Task, limit: TimeLimit) -> End:
    """Run a call, and create its outcome. What it has printed is in its files; files without output are removed."""
    files = call_files(paths, task.job_id, task.number)
    with _output(files, calls.facts.stderr_to_stdout):
        return _run(calls, task, files.result_pickle, limit)


def _run(calls: Calls, task: Task, path: Path, limit: TimeLimit) -> End:
    leave: _Leave | None = None
    own = os.getpid()
    try:
        call = calls.current(task.index)
        leave = _Leave(calls, task, call, path)
        with _signals(leave, limit):
            value = call.result()
            leave.over = True
            if os.getpid() != own:
                _end_child(None)
        return _end(path, "success", value)
    except BaseException as error:
        if os.getpid() != own:
            _end_child(error)
        if leave and leave.left:  # a `finally` of the function's may have raised something else since
            why = f"Job not requeued because: {leave.reason}."
            return _end(path, "error", why) if leave.reason else End(outcome=None, message=leave.by)
        if isinstance(error, SystemExit):
            return _end(path, "uncompleted", f"the function has ended its process: SystemExit({error.code!r})")
        if isinstance(error, KeyboardInterrupt):
            return _end(path, "uncompleted", "the function was interrupted (SIGINT)")
        text = traceback.format_exc()
        _tell(text)
        return _end(path, "error", text)


def _tell(text: str) -> None:
    """Print to stderr, if the function has left it open. Before the outcome, after which it is read."""
    with contextlib.suppress(Exception):
        print(text, file=sys.stderr)


def _end_child(error: BaseException | None) -> NoReturn:
    """End a process that the function has forked, and that has come back from it: the call is not its own."""
    code: object = 0
    if isinstance(error, SystemExit):
        code = error.code or 0
    elif error:
        code = "".join(traceback.format_exception(error))
    if not isinstance(code, int):
        _tell(str(code))
        code = 1
    _flush(sys.stdout, sys.stderr)
    os._exit(code & 0xFF)


def _flush(*streams: TextIO) -> None:
    for stream in streams:
        with contextlib.suppress(Exception):  # one that is closed, or of the function's own
            stream.flush()


def _end(path: Path, outcome: str, value: object) -> End:
    """Create the outcome; where there is one already, that counts."""
    try:
        mine = end_call(path, outcome, value)
    except OSError as error:
        return End(outcome="uncompleted", message=f"its outcome could not be written: {error}"[:_MOST_WORDS])
    except Exception as error:  # a value that cannot be pickled may raise anything
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        said = f"the result, of type {kind}, cannot be pickled: {type(error).__name__}: {error}"
        text = f"{traceback.format_exc()}\n{said}"
        _tell(text)
        return _end(path, "error", text)
    found = outcome if mine else outcome_of(path)
    return End(outcome=found, message="" if outcome == "success" else _last_line(str(value)))


def _opened(stream: TextIO, number: int) -> TextIO:
    """The stream, or another one in its place if it is closed."""
    return os.fdopen(number, "w", buffering=1, closefd=False) if stream.closed else stream


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "").strip()[:_MOST_WORDS]


@contextlib.contextmanager
def _signals(leave: _Leave, limit: TimeLimit) -> Iterator[None]:
    """Within the block signals and the time limit are `leave`'s. Outside, this process does not mind them.

    A timer that the function has set, and not its handler, would end a later call.
    """
    before = {number: signal.signal(number, leave.handle) for number in (signal.SIGUSR2, signal.SIGTERM)}
    limit.call = leave
    limit.began()
    try:
        yield
    finally:
        leave.over = True
        for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _output(files: utils.JobPaths, together: bool) -> Iterator[None]:
    """Within the block stdout and stderr of this process, and of what it starts, go to the files of a call.

    The function may close or replace them: afterwards they are as before.
    """
    paths = {1: files.stdout, 2: files.stdout if together else files.stderr}
    own = (sys.stdout, sys.stderr)
    _flush(*own)
    kept = {number: os.dup(number) for number in paths}
    for number, path in paths.items():
        handle = open_file(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(handle, number)
        os.close(handle)
    try:
        yield
    finally:
        _flush(sys.stdout, sys.stderr, *own)
        sys.stdout, sys.stderr = (_opened(stream, number) for number, stream in enumerate(own, 1))
        for number, handle in kept.items():
            os.dup2(handle, number)
            os.close(handle)
        for path in set(paths.values()):
            with contextlib.suppress(OSError):
                if not path.stat().st_size:
                    path.unlink()
