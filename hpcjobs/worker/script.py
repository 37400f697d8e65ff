"""script: a program of the user's on every rank, in the environment that torchrun would give it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hpcjobs.config.shape import shape_of
from hpcjobs.distributed.drain import ASKS_AGAIN
from hpcjobs.distributed.lost import LostRankError, Ring, tell_lost
from hpcjobs.distributed.program_env import MEETING, program_env
from hpcjobs.distributed.rendezvous import Rendezvous
from hpcjobs.errors import HpcJobsError
from hpcjobs.masking import reveal
from hpcjobs.run_folder.files import user_umask
from hpcjobs.run_folder.process import end_processes
from hpcjobs.run_folder.rank_state import RankState
from hpcjobs.run_folder.snapshot import program_command
from hpcjobs.worker.guard import die_with_parent, signal_name
from hpcjobs.worker.last_words import LastWords
from hpcjobs.worker.signals import Drained, Terminated, Warned
from hpcjobs.worker.stopped import is_stopped

if TYPE_CHECKING:
    from hpcjobs.distributed.work import Work

log = logging.getLogger(__name__)
# How often the program and the other ranks are looked at, and how long a program may take to end after SIGTERM because
# another rank was lost (seconds).
_POLL, _LOOK, _GRACE = 0.1, 1.0, 10.0
# A little less than `hpcjobs cancel` waits before it kills local ranks (seconds).
_LOCAL_SECONDS = 18.0
# EX_TEMPFAIL of sysexits(3): "start me again".
TRY_AGAIN = os.EX_TEMPFAIL
VMSTAT = Path("/proc/vmstat")
# The variable by which the processes of a rank's program are known.
_MARK = "HPCJOBS_PROGRAM"


def run_script(work: Work) -> None:
    """Run the planned program, from its snapshot, as this rank. Raises an HpcJobsError if it exits with an error.

    With `cluster.on_rank_failure: end` it is ended where another rank was lost, and tells the others of its own end.
    """
    words, folders = program_command(work.paths, work.plan.code, work.plan.argv)
    shape = shape_of(work.config.cluster, 1, script=True)
    with _meeting(work) as master:
        alone, restarts = bool(work.plan.code.snapshot.meets_itself), work.config.cluster.restarts
        env = _outside() | program_env(work.rank, master, shape, alone, restarts)
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [*folders, env.get("PYTHONPATH", "")]))
        env = marked(env, work)
        log.info("command: %s", " ".join(words))
        work.heartbeat.enter(RankState.WORKING)
        said = LastWords()
        warn = work.config.cluster.warn
        with Warned(warn.signal if warn else None) as warned:
            try:
                ended = oom_kills()
                program = Program(_start(revealed(words, work.plan.run), env, work), env)
                code = _wait(work, program)
                how = how_ended(code, ended)
            except HpcJobsError as error:
                _tell(work, str(error))
                raise
    _judge(work, code, how, warned, said)


def _judge(work: Work, code: int, how: str, warned: Warned, said: LastWords) -> None:
    """Say what the end of the program means: Drained, or an HpcJobsError, where it was not done."""
    warn = work.config.cluster.warn
    if warn and code == TRY_AGAIN:
        _tell(work, ASKS_AGAIN)
        raise Drained(f"drained: {ASKS_AGAIN} (exit code {TRY_AGAIN})")
    if warned.by and code in (0, -warned.number, 128 + warned.number):
        raise Drained(f"drained: warned by {warned.by}")
    if code:
        _tell(work, f"ended with {how}")
        rank, cause = work.rank, said.read()
        where = f"on rank {rank.rank} ({rank.host})"
        raise HpcJobsError(f"{' '.join(work.plan.argv)} ended with {how} {where}{f': {cause}' if cause else ''}")


def how_ended(code: int, oom_kills_before: int | None = None) -> str:
    """`exit code 7`, `signal SIGSEGV`; of SIGKILL also whether the node had no memory left, since it was so many."""
    how = f"exit code {code}" if code >= 0 else f"signal {signal_name(-code).removeprefix('signal ')}"
    if code not in (-signal.SIGKILL, 128 + signal.SIGKILL) or oom_kills_before is None:
        return how
    killed = (oom_kills() or 0) > oom_kills_before
    return f"{how}: out of memory, as the kernel's OOM killer was at work on the node" if killed else how


def oom_kills() -> int | None:
    """How many processes of this machine, those in a job's cgroup too, the kernel has ended for lack of memory.

    proc(5), /proc/vmstat, since Linux 4.13; None if it is not known.
    """
    with contextlib.suppress(OSError, ValueError):
        lines = (line.split() for line in VMSTAT.read_text().splitlines())
        return next((int(value) for name, value in lines if name == "oom_kill"), None)
    return None


def _tell(work: Work, why: str) -> None:
    """Tell the other ranks that this one has ended, if they need it."""
    if _need_each_other(work):
        tell_lost(work.paths, work.rank.attempt, f"rank {work.rank.rank} on {work.rank.host} ({why})")


def _need_each_other(work: Work) -> bool:
    return work.config.cluster.on_rank_failure == "end" and work.rank.world_size > 1


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
    """Start the program; it dies with this process, as this one dies with its guard.

    It has what srun left open for its tasks, by which MPI reaches Slurm (PMI_FD); what Python opens here it has not.
    """
    try:
        return subprocess.Popen(
            command, env=env, cwd=work.plan.code.cwd, umask=user_umask(), preexec_fn=die_with_parent, close_fds=False
        )
    except OSError as error:
        why = f"{error.strerror}: {command[0]}" if error.filename in (None, command[0]) else str(error)
        raise HpcJobsError(f"{command[0]} cannot be started on {work.rank.host}: {why}") from error


def marked(env: dict[str, str], work: Work) -> dict[str, str]:
    """The environment of a program of this rank, by which what it starts is known."""
    return env | {_MARK: f"{work.rank.attempt}-{work.rank.rank}-{os.getpid()}-{time.monotonic_ns()}"}


def _wait(work: Work, program: Program) -> int:
    """Its exit code. Raises a LostRankError after ending it, if another rank was lost; Drained if that asks for more.

    Ranks that need each other wait for ever for a program that is stopped: it is ended as a stopped rank is.
    """
    try:
        return _watch(work, program)
    except Terminated:
        # Slurm, or `hpcjobs cancel`, has sent SIGTERM to the program as well, and will kill it in time. Its handler may
        # be saving: it gets a second one only where nobody else does, or when it should have been killed by then.
        patience = {"slurm": max(work.drain.left(), 1.0), "local": _LOCAL_SECONDS}
        program.await_end(patience.get(work.rank.launcher, 0.0))
        program.end()
        _tell(work, "ended by SIGTERM")
        raise
    except BaseException:
        program.end()
        raise


def _watch(work: Work, program: Program) -> int:
    timeout = work.config.lost_after
    ring = Ring(work.paths, work.rank, work.heartbeat, timeout)
    looks = _need_each_other(work) or work.config.cluster.restarts
    looked = runs = time.monotonic()
    while (code := program.await_end(_POLL)) is None:
        if not looks or time.monotonic() - looked < _LOOK:
            continue
        looked = time.monotonic()
        runs = runs if is_stopped(program.pid) else looked
        if looked - runs > timeout:
            program.kill()
            why = f"{work.plan.argv[0]} was ended on rank {work.rank.rank}: stopped for {looked - runs:.0f} s"
            raise HpcJobsError(why)
        if lost := ring.lost():
            program.end()
            if ASKS_AGAIN in lost:
                raise Drained(f"drained: {ASKS_AGAIN}: {lost}")
            raise LostRankError(f"{lost} was lost: the others cannot go on without it")
    return code


class Program:
    """The program of a rank, and the processes that it has started: they have its mark in their environment."""

    def __init__(self, child: subprocess.Popen[bytes], env: Mapping[str, str]) -> None:
        self._child, self._mark = child, env[_MARK]

    @property
    def pid(self) -> int:
        """Its process."""
        return self._child.pid

    def await_end(self, seconds: float) -> int | None:
        """Its exit code; None if it still runs by then."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._child.wait(seconds)
        return None

    def end(self) -> None:
        """Terminate it, and kill it if it does not end; then what it has left."""
        if self._child.poll() is None:
            self._child.terminate()
            self.await_end(_GRACE)
        self.kill()

    def kill(self) -> None:
        """End it, and what it has left, at once."""
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()
        end_processes(_MARK, self._mark)


def revealed(command: list[str], run: str) -> list[str]:
    """The command with the secrets that its plan does not have."""
    try:
        return reveal(command, os.environ)
    except KeyError as absent:
        name = absent.args[0]
        raise HpcJobsError(
            f"the command needs a secret that is not in this job's environment: {name}; next: export {name}=... in the "
            f"shell, then hpcjobs resume {run}"
        ) from None
