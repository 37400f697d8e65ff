"""What Slurm knows of this user's jobs: squeue, then sacct, each asked once a look."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

from hpcjobs.errors import LaunchError
from hpcjobs.launch.job_states import JobState
from hpcjobs.launch.programs import TIMEOUT, run, words

# How long a command that only looks waits for Slurm, for all its questions together (seconds).
LOOK_SECONDS = 8.0
# job (of an array: its own), state, reason, nodes, script. A site's notice, or a heading, is no such line.
_LAYOUT = "%F|%T|%r|%N|%o"
_LINE = re.compile(r"(\d+)\|([A-Z][A-Z_]*)\|([^|]*)\|([^|]*)\|(.*)")
# JobID, State, NodeList, ExitCode
_ACCOUNTED = re.compile(r"(\d+)(?:[_+]\S*)?\|([A-Z][A-Z_]*(?: by \d+)?)\|([^|]*)\|(\d*:?\d*)")


@dataclass(frozen=True)
class _Row:
    """A line of squeue."""

    job: JobState
    command: str


class _Look:
    """The answers of one look. `expected` are the jobs that sacct is asked for, if squeue does not know them."""

    def __init__(self, seconds: float, expected: Iterable[str] = ()) -> None:
        self._ends, self._expected = time.monotonic() + seconds, set(expected)
        self._rows: list[_Row] | LaunchError | None = None
        self._accounted: dict[str, JobState] = {}
        self._asked: set[str] = set()

    @property
    def left(self) -> float:
        """Seconds until its deadline."""
        return max(self._ends - time.monotonic(), 0.1)

    def queue(self) -> list[_Row]:
        """The lines of squeue. Raises a LaunchError, again each time, if it does not answer."""
        if self._rows is None:
            try:
                self._rows = _squeue(lambda: self.left)
            except LaunchError as error:
                self._rows = error
        if isinstance(self._rows, LaunchError):
            raise LaunchError(str(self._rows))
        return self._rows

    def account(self, job_ids: Iterable[str], known: Iterable[str]) -> dict[str, JobState]:
        """What sacct knows of these jobs; asked once for all that are expected."""
        if new := set(job_ids) - self._asked:
            new |= self._expected - self._asked - set(known)
            self._asked |= new
            self._accounted |= _sacct(sorted(new, key=int), self.left)
        return {job_id: self._accounted[job_id] for job_id in job_ids if job_id in self._accounted}


_current: ContextVar[_Look | None] = ContextVar("_current", default=None)


@contextlib.contextmanager
def one_look(seconds: float | None = None, expected: Iterable[str] = ()) -> Iterator[None]:
    """In this block squeue and sacct are asked once, for whatever is asked of them, with one deadline.

    `seconds` is until that deadline, by default LOOK_SECONDS. `expected` are ids of jobs that will be asked for. A
    block in a block is a part of it.
    """
    if _current.get() is not None:
        yield
        return
    numbers = {job_id for job_id in expected if job_id.isdigit()}
    token = _current.set(_Look(LOOK_SECONDS if seconds is None else seconds, numbers))
    try:
        yield
    finally:
        _current.reset(token)


def job_states(job_ids: Sequence[str]) -> dict[str, JobState]:
    """Job id -> state, from squeue, else sacct, else UNKNOWN with source none. Raises a LaunchError."""
    look = _current.get() or _Look(TIMEOUT)
    found: dict[str, list[JobState]] = {}
    for row in look.queue():
        found.setdefault(row.job.job_id, []).append(row.job)
    states = {job_id: _as_one(found[job_id]) for job_id in job_ids if job_id in found}
    rest = [job_id for job_id in job_ids if job_id not in states and job_id.isdigit()]
    states |= look.account(rest, found) if rest else {}
    return {job_id: states.get(job_id, JobState(job_id=job_id, state="UNKNOWN", source="none")) for job_id in job_ids}


def find_submitted(keys: Sequence[str], seconds: float = TIMEOUT) -> dict[str, str]:
    """Key -> job id, for keys in the script names of jobs that the queue still knows. Raises a LaunchError."""
    found: dict[str, str] = {}
    for job_id, command in commands(seconds) if keys else ():
        found |= {key: job_id for key in keys if key in command}
    return found


def commands(seconds: float = TIMEOUT) -> Iterator[tuple[str, str]]:
    """(job id, script) of this user's jobs, without refused ones, which Slurm lists as ended without a node."""
    for row in (_current.get() or _Look(seconds)).queue():
        if row.job.nodes or not row.job.over:
            yield row.job.job_id, row.command


def _squeue(left: Callable[[], float]) -> list[_Row]:
    """This user's jobs; elements of an array are separate. All are listed: squeue fails if it has forgotten one."""
    command = ["squeue", "--noheader", "--states=all", f"--format={_LAYOUT}"]
    done = run([*command, "--me"], left())
    if done.returncode and "option" in done.stderr:  # --me came with Slurm 20.02
        done = run([*command, "--user", str(os.getuid())], left())
    if done.returncode:
        raise LaunchError(f"squeue does not answer: {words(done.stderr)}")
    return [_row(*match.groups()) for line in done.stdout.splitlines() if (match := _LINE.fullmatch(line.strip()))]


def _row(job_id: str, state: str, reason: str, nodes: str, command: str) -> _Row:
    job = JobState(job_id=job_id, state=state, reason="" if reason == "None" else reason, nodes=nodes)
    return _Row(job, command)


def _as_one(states: Sequence[JobState]) -> JobState:
    """The state of an array as one job: running if any element runs, pending if any is, else its worst state."""

    def place(state: JobState) -> int:
        if not state.over:
            return 1 if state.pending else 0
        return 3 if state.state == "COMPLETED" else 2

    first = min(states, key=place)
    nodes = ",".join(dict.fromkeys(state.nodes for state in states if state.nodes))
    return dataclasses.replace(first, nodes=nodes)


def _sacct(job_ids: Sequence[str], seconds: float) -> dict[str, JobState]:
    """The states that accounting has; empty if slurmdbd is down or absent."""
    command = ["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State,NodeList,ExitCode"]
    try:
        done = run([*command, f"--jobs={','.join(job_ids)}"], seconds)
    except LaunchError:
        return {}
    found: dict[str, list[JobState]] = {}
    for line in done.stdout.splitlines() if done.returncode == 0 else ():
        if match := _ACCOUNTED.fullmatch(line.strip()):
            job_id, state, nodes, exit_code = match.groups()
            one = JobState(job_id=job_id, state=state, nodes=nodes, exit_code=exit_code, source="sacct")
            found.setdefault(job_id, []).append(one)
    return {job_id: _as_one(states) for job_id, states in found.items()}
