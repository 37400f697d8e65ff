"""Code of others: entry points of installed packages (metrics, engines, kinds of jobs), and code that ends its process.

They are not searched for names of hpcjobs' own, since reading the metadata of all packages takes time.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from hpcjobs.errors import ConfigError, HpcJobsError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

METRICS, ENGINES, JOBS = "hpcjobs.metrics", "hpcjobs.engines", "hpcjobs.jobs"


class ExitError(HpcJobsError):
    """Code of a user wanted to end the process: the run would have ended as if all were done."""

    def __init__(self, deed: str) -> None:
        super().__init__(f"code that is not hpcjobs' own {deed}; it may raise an error, not end the process")


class _Inside(threading.local):
    """How deep this thread is in code of others, and in which process it went in."""

    depth = 0
    process = 0


_inside, _really_exit = _Inside(), os._exit


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """A block that runs code of others: raises an ExitError where that calls `sys.exit` or `os._exit`, or raises what
    is no Exception, as a CancelledError of asyncio.

    A process that it forks ends with the block, rather than go on as a second rank; other threads end as they like, and
    Ctrl-C is the user's.
    """
    os._exit = _refuse_exit
    before, process = _inside.process, os.getpid()
    _inside.depth, _inside.process = _inside.depth + 1, process
    try:
        yield
        _end_fork(process, 0)
    except BaseException as end:
        _end_fork(process, end.code if isinstance(end, SystemExit) else 1)
        if type(end) is SystemExit:
            raise ExitError(f"called sys.exit({'' if end.code is None else repr(end.code)})") from end
        if isinstance(end, Exception | KeyboardInterrupt | SystemExit):
            raise  # a subclass of SystemExit: a signal has ended this rank
        raise ExitError(f"raised {type(end).__name__}: {end}") from end
    finally:
        _inside.depth, _inside.process = _inside.depth - 1, before


def _end_fork(process: int, code: object) -> None:
    """End this process if it is not `process`."""
    if os.getpid() != process:
        _really_exit(code if isinstance(code, int) else int(code is not None))


class _Limit:
    """The most seconds that a metric or template may take in this process; None: no limit."""

    seconds: float | None = None
    running = False


def limit_time(seconds: float | None) -> None:
    """Set how long a block of `timed` may take, in this process."""
    _Limit.seconds = seconds


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    """A block that raises a TimeoutError after the seconds of `limit_time`; one within another has the outer's limit.

    It works in the main thread and interrupts Python code; what does not return from C code is ended by the watchdog.
    """
    seconds = _Limit.seconds
    if seconds is None or _Limit.running or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if _Limit.running:
            raise TimeoutError(f"{what} took more than {seconds:g} s (run.metric_timeout)")

    before, _Limit.running = signal.signal(signal.SIGALRM, stop), True
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again each second: foreign code may swallow the first
    try:
        yield
    finally:
        _Limit.running = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _refuse_exit(status: int) -> NoReturn:
    if _inside.depth and _inside.process == os.getpid():
        raise ExitError(f"called os._exit({status})")
    _really_exit(status)


@functools.cache
def registered(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name. Raises a ConfigError if two packages share one.

    Source: packaging.python.org/specifications/entry-points.
    """
    from importlib.metadata import entry_points

    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise ConfigError(
                f"{point.name!r} is registered twice as {group}: {other.value} ({_package(other)}) and {point.value} "
                f"({_package(point)}); uninstall one of them"
            )
    return found


def load(group: str, name: str) -> Any:
    """The object registered in a group as `name`. Raises a ConfigError if it cannot be imported, and a KeyError if
    there is none.
    """
    point = registered(group)[name]
    try:
        with contained():
            return point.load()
    except Exception as error:  # another package's code may raise anything
        raise ConfigError(
            f"{name!r} of {_package(point)} ({group}) cannot be used: {point.value}: {type(error).__name__}: {error}"
        ) from error


def package_facts(group: str, names: Iterable[str]) -> dict[str, str]:
    """`name version` of the package that registers each of these names, by `group:name`; without names of hpcjobs' own.
    """
    return {f"{group}:{name}": _package(registered(group)[name]) for name in names if name in registered(group)}


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
