"""The guard: the parent process of a rank. It records how the rank ended and frees its chunks at once.

A process killed by SIGKILL, the out-of-memory killer or a segmentation fault cannot report anything, and other nodes
cannot tell a dead rank from a slow one before its leases time out. Its parent knows within a millisecond.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType

from hpcjobs.config.resolve import read_config
from hpcjobs.distributed.rank import Rank
from hpcjobs.errors import HpcJobsError
from hpcjobs.run_folder.heartbeat import read_heartbeat, write_heartbeat
from hpcjobs.run_folder.ledger.chunks import ChunkList
from hpcjobs.run_folder.ledger.claims import Claims
from hpcjobs.run_folder.ledger.takeover import release, whole_samples
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.rank_state import RankState

log = logging.getLogger(__name__)
_FORWARDED = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGCONT)
_PR_SET_PDEATHSIG = 1


def guarded(
    work: Callable[[], None], ended: Callable[[int], bool], watch: Callable[[int], None] | None = None
) -> int:
    """Run `work` in a forked child and return its exit code, or 128 + N if signal N ended it.

    `watch`, called with the child's pid in a thread, may end it.

    If it failed, `ended` is called first, with the exit code, or -N for signal N. A child that ends with 0 amid its
    work (C code may call `exit`) has failed, too: `ended` is called with 0, and the code is 1 unless that says that it
    was in order. Signals that end or warn are forwarded to the child. If this process is killed, the kernel
    kills the child too (prctl(2), PR_SET_PDEATHSIG; Linux only).
    """
    parent, (heard, told) = os.getpid(), os.pipe()
    os.set_blocking(heard, False)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _die_with(parent)
            code = _run(work)
            os.write(told, b".")
        finally:
            os._exit(code)

    def forward(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    os.close(told)
    if watch:
        threading.Thread(target=watch, args=(child,), name="stopped", daemon=True).start()
    try:
        _, status = os.waitpid(child, 0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    code = os.waitstatus_to_exitcode(status)
    if not code and _said(heard):
        return 0
    in_order = False
    with contextlib.suppress(OSError, HpcJobsError):
        in_order = ended(code)
    return int(not in_order) if not code else code if code > 0 else 128 - code


def _said(heard: int) -> bool:
    """Whether the child has said that its work is over."""
    with os.fdopen(heard, "rb", buffering=0) as pipe:
        return bool(pipe.read(1))


def _run(work: Callable[[], None]) -> int:
    """Run the child's work and return its exit code; it must not return into the parent's code."""
    code: object = 0
    try:
        work()
    except SystemExit as end:
        code = end.code
    except HpcJobsError as error:
        notice(f"error: {error}")
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        notice(traceback.format_exc())
        code = 1
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    return code if isinstance(code, int) else 0 if code is None else 1


def notice(text: str) -> None:
    """Print to stderr, ignoring errors: the log's disk may be full, which may be why the rank ends."""
    with contextlib.suppress(OSError):  # the disk of the log may be full, and that is why the rank ends
        print(text, file=sys.stderr)


_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends; for the moment between fork and exec."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _die_with(parent: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(137)


def after_end(paths: RunPaths, code: int, why: str | None = None) -> bool:
    """Record in a dead rank's heartbeat how it ended, and give back its chunks. `why` its guard ended it, if it did.

    Returns whether the rank had said itself that it ends.
    """
    rank = Rank.from_env()
    how = f"ended by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
    how += "" if code else ", in the middle of its work: something that it runs has ended the process"
    how = f"ended by its guard: {why}" if why else how
    path = paths.heartbeat(rank.attempt, rank.rank)
    vitals = read_heartbeat(path)
    in_order = vitals is not None and vitals.ended_at is not None
    if vitals and not in_order:
        vitals.end(RankState.DEAD, how)
        vitals.first_error = vitals.first_error or (None if code else f"the process {how}")
        vitals.signal = signal_name(-code) if code < 0 else None
        write_heartbeat(path, vitals)
        notice(f"rank {rank.rank} on {rank.host} was {how}")
    free_chunks(paths, paths.journal(rank.attempt, rank.rank).name, f"its rank was {how}")
    return in_order


def signal_name(number: int) -> str:
    """SIGKILL for 9; real-time signals have numbers only."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def free_chunks(paths: RunPaths, journal: str, why: str) -> int:
    """Give back every chunk of the newest round that is leased for `journal`, whose writer is dead; returns how many.
    """
    rounds = paths.rounds()
    if not rounds or not (paths.ranks / journal).exists():
        return 0
    claims, chunks = Claims(paths.round(rounds[-1])), ChunkList.read(paths.chunks(rounds[-1]))
    listing, freed = claims.list(), 0
    deterministic = read_config(paths.config).run.deterministic
    for chunk in listing.leased.keys() - listing.settled:
        lease = claims.read_lease(chunk, listing.leased[chunk])
        if lease.journal != journal:
            continue
        found = [] if deterministic else whole_samples(lease, paths.ranks, set(chunks[chunk]))
        whole = [index for former in found if former.generation == lease.generation for index in former.indexes]
        freed += release(claims, lease, whole, why)
    return freed
