"""script: a program of the user's on every rank, in the environment that torchrun would give it."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from hpcjobs.distributed.drain import ASKS_AGAIN
from hpcjobs.distributed.lost import LostRankError, Ring, tell_lost
from hpcjobs.distributed.program_env import MEETING, program_env
from hpcjobs.distributed.rendezvous import Rendezvous
from hpcjobs.errors import HpcJobsError
from hpcjobs.masking import reveal
from hpcjobs.run_folder.files import user_umask
from hpcjobs.run_folder.rank_state import RankState
from hpcjobs.run_folder.snapshot import program_command
from hpcjobs.worker.signals import Drained, Terminated, Warned
from hpcjobs.worker.stopped import is_stopped

if TYPE_CHECKING:
    from hpcjobs.distributed.work import Work

log = logging.getLogger(__name__)
# How often the program and the other ranks are looked at, and how long a program may take to end after SIGTERM because
# another rank was lost (seconds).
_POLL, _LOOK, _GRACE = 0.1, 1.0, 10.0
_PR_SET_PDEATHSIG = 1
# EX_TEMPFAIL of sysexits(3): "start me again". Above _BY_SIGNAL a shell says which signal has ended a program.
TRY_AGAIN, _BY_SIGNAL = os.EX_TEMPFAIL, 128
_LIBC = ctypes.CDLL(None, use_errno=True)


def run_script(work: Work) -> None:
    """Run the planned program, from its snapshot, as this rank. Raises an HpcJobsError if it exits with an error.

    With `cluster.on_rank_failure: end` it is ended where another rank was lost, and tells the others of its own end.
    """
    words, folders = program_command(work.paths, work.plan.code, work.plan.argv)
    with _meeting(work) as master:
        env = _outside() | program_env(work.rank, master, work.plan)
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [*folders, env.get("PYTHONPATH", "")]))
        log.info("command: %s", " ".join(words))
        work.heartbeat.enter(RankState.WORKING)
        warn = work.config.cluster.warn
        with Warned(warn.signal if warn else None) as warned:
            child = _start(_revealed(words, work.plan.run), env, work)
            try:
                code = _wait(work, child)
            except Terminated:
                _let_end(work, child)
                raise
            except BaseException:
                _end(child)
                raise
    if code == TRY_AGAIN:
        raise Drained(f"drained: {ASKS_AGAIN} (exit code {TRY_AGAIN})")
    if warned.by and (code <= 0 or code > _BY_SIGNAL):
        raise Drained(f"drained: warned by {warned.by}")
    if code:
        name = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if work.config.cluster.on_rank_failure == "end" and work.rank.world_size > 1:
            tell_lost(work.paths, work.rank.attempt, f"rank {work.rank.rank} on {work.rank.host} (ended with {name})")
        raise HpcJobsError(f"{' '.join(work.plan.argv)} ended with {name} on rank {work.rank.rank} ({work.rank.host})")


@contextlib.contextmanager
def _meeting(work: Work) -> Iterator[tuple[str, int]]:
    """Where the ranks of the program may meet: the place that a launcher has given, or one of our own."""
    if work.rank.master:
        yield work.rank.master
        return
    rendezvous = Rendezvous.of(work.paths.rendezvous, work.rank, work.config.run.rendezvous_timeout)
    with rendezvous.meeting_place() as master:
        yield master


def _outside() -> dict[str, str]:
    """This process's environment, without what an outer launcher has said of ranks; the user's gloo interface stays."""
    return {name: value for name, value in os.environ.items() if name not in MEETING}


def _start(command: list[str], env: Mapping[str, str], work: Work) -> subprocess.Popen[bytes]:
    """Start the program; it dies with this process, as this one dies with its guard."""
    try:
        return subprocess.Popen(
            command, env=env, cwd=work.plan.code.cwd, umask=user_umask(), preexec_fn=_die_with_parent
        )
    except OSError as error:
        why = f"{error.strerror}: {command[0]}" if error.filename in (None, command[0]) else str(error)
        raise HpcJobsError(f"{command[0]} cannot be started on {work.rank.host}: {why}") from error


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait(work: Work, child: subprocess.Popen[bytes]) -> int:
    """Its exit code. Raises a LostRankError after ending it, if another rank was lost.

    Ranks that need each other wait for ever for a program that is stopped: it is ended as a stopped rank is.
    """
    ring = Ring(work.paths, work.rank, work.heartbeat, work.config.run.lease_timeout)
    looks = work.config.cluster.on_rank_failure == "end" and work.rank.world_size > 1
    looked, runs = time.monotonic(), time.monotonic()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(_POLL)
        if looks and time.monotonic() - looked > _LOOK:
            looked = time.monotonic()
            runs = runs if is_stopped(child.pid) else looked
            if looked - runs > work.config.run.lease_timeout:
                child.kill()
                child.wait()
                why = f"{work.plan.argv[0]} was ended on rank {work.rank.rank}: stopped for {looked - runs:.0f} s"
                tell_lost(work.paths, work.rank.attempt, f"rank {work.rank.rank} on {work.rank.host} (stopped)")
                raise HpcJobsError(why)
            if lost := ring.lost():
                _end(child)
                raise LostRankError(f"{lost} was lost: the others cannot go on without it")


def _let_end(work: Work, child: subprocess.Popen[bytes]) -> None:
    """Wait for the end of a program that Slurm, or `hpcjobs cancel`, has sent SIGTERM as well, and will kill in time.

    It gets no second one: its handler may be saving. Only where nobody else does, or by the time that it should have
    been killed, this process passes it on.
    """
    if work.rank.launcher in ("slurm", "submitit"):
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(max(work.drain.left(), 1.0))
    if child.returncode is None:
        _end(child)


def _revealed(command: list[str], run: str) -> list[str]:
    """The command with the secrets that its plan does not have."""
    try:
        return reveal(command, os.environ)
    except KeyError as absent:
        name = absent.args[0]
        raise HpcJobsError(
            f"the command needs a secret that is not in this job's environment: {name}; next: export {name}=... in the "
            f"shell, then hpcjobs resume {run}"
        ) from None


def _end(child: subprocess.Popen[bytes]) -> None:
    """Terminate the program, and kill it if it does not end."""
    child.terminate()
    try:
        child.wait(timeout=_GRACE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
