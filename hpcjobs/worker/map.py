"""map on a rank: calls of Python functions from the ledger, each in the process that this rank keeps for them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from hpcjobs.distributed.rank import job_end
from hpcjobs.engines.base import Source
from hpcjobs.requests import Completion, Request, SampleError, TaskType
from hpcjobs.run_folder.calls import Calls, call_files, call_id, end_call, outcome_of
from hpcjobs.run_folder.files import create_once, user_umask
from hpcjobs.run_folder.rank_state import RankState
from hpcjobs.worker.call import BEGUN, TIMED_OUT, End, Task
from hpcjobs.worker.call_place import alone_env, call_env, job_of
from hpcjobs.worker.eval import run_answers
from hpcjobs.worker.guard import die_with_parent
from hpcjobs.worker.script import Program, how_ended, marked
from hpcjobs.worker.sweep import share_of_gpus

if TYPE_CHECKING:
    from pathlib import Path

    from hpcjobs.distributed.work import Work

log = logging.getLogger(__name__)
# How often a call that runs is looked at, whether it was cancelled, and how long it may take over its limit (seconds).
_POLL, _LOOK, _OVER = 0.2, 1.0, 10.0
# How long a process that is told to end may take, and where nothing is left to run, its threads and atexit (seconds).
_IDLE, _LAST = 0.5, 60.0
# How long after a call the rank's own signal may come, if Slurm has sent it to all processes, and how early a warning.
_TOGETHER, _EARLY = 2.0, 75.0


def run_map(work: Work) -> None:
    """Run this rank's share of the calls."""
    with contextlib.closing(CallEngine(work)) as engine:
        run_answers(work, engine)


class CallEngine:
    """Runs calls one at a time. The text of a completion is JSON: `outcome` and `host`.

    What a function raises is its outcome, and an error. Where a call ends its process, as the out-of-memory killer
    does, it is run again as often as `run.retries` says.
    """

    weights: ClassVar[bool] = False
    tasks: ClassVar[tuple[TaskType, ...]] = ("generate",)
    batch_size = 1

    def __init__(self, work: Work) -> None:
        self._work, self._calls = work, Calls(work.paths)
        self._job = job_of(work.paths, self._calls)
        alone = work.config.cluster.minutes * 60 <= self._calls.facts.seconds + 60
        self._ends_at = job_end().at if alone and work.rank.launcher == "slurm" else None
        self._server: _Server | None = None

    def close(self) -> None:
        """End the process of the calls, once the threads that they have left in it have ended."""
        if self._server:
            self._server.end(_LAST, lambda: not self._work.drain.has_room(_POLL))
        self._server = None

    def stream(self, requests: Source) -> Iterator[Completion]:
        """Completions in the order of the requests. It ends where a call has left, to go on at another start."""
        for request in requests:
            if request is not None:
                if (done := self._run(request)) is None:
                    self._work.heartbeat.enter(RankState.DRAINING)
                    return
                yield done

    def _run(self, request: Request) -> Completion | None:
        started, tries = time.time(), self._work.config.run.retries + 1
        name = call_id(self._job, request.index, len(self._calls))
        task, path = Task(index=request.index, job_id=name, ends_at=self._ends_at), self._outcome(name)
        end = self._found(path) if path.exists() else End(outcome=None)
        while end.outcome is None:
            found = self._execute(task, path)
            end = found if isinstance(found, End) else end
            if end.outcome is None and not self._goes_on(isinstance(found, End)):
                return None
            if isinstance(found, str) and self._killed(path, found) >= tries:
                end = self._lost(path, found, tries)
        return self._completion(request, end, started)

    def _goes_on(self, left: bool) -> bool:
        """Whether this rank may run a call again that has `left`, or else was killed. If not, another start does."""
        return self._work.drain.has_room(self._calls.facts.seconds if left and self._ends_at else 0.0)

    def _is_to_leave(self) -> bool:
        """Whether this rank is to end soon too, so that a call has left for that."""
        drain, ends = self._work.drain, time.monotonic() + _TOGETHER
        while not drain.reason and time.monotonic() < ends:
            time.sleep(_POLL)
        return bool(drain.reason) or drain.left() <= self._calls.facts.warning + _EARLY

    def _killed(self, path: Path, how: str) -> int:
        """How often the process of a call was killed, with this time, in all starts of the run."""
        number = 1
        while not create_once(path.with_suffix(f".killed-{number}"), f"{how} on {self._work.rank.host}"):
            number += 1
        log.warning("the process of call %s was ended by %s, for the %d. time", path.name, how, number)
        return number

    def _outcome(self, name: str) -> Path:
        path: Path = call_files(self._work.paths, name, 0).result_pickle
        return path

    def _found(self, path: Path) -> End:
        outcome = outcome_of(path)
        return End(outcome=outcome, message="" if outcome == "success" else f"it has ended before ({outcome})")

    def _lost(self, path: Path, how: str, tries: int) -> End:
        where = f"on {self._work.rank.host}" + (f" in each of {tries} tries" if tries > 1 else "")
        message = f"the process of the call was ended by {how} {where}"
        message += ": out of memory? (mem_gb)" if "SIGKILL" in how else ""
        end_call(path, "uncompleted", message)
        return End(outcome=outcome_of(path), message=message)

    def _completion(self, request: Request, end: End, started: float) -> Completion:
        values = {"outcome": end.outcome, "host": self._work.rank.host}
        failed = end.outcome != "success"
        error = SampleError({"error": "FunctionError"}.get(str(end.outcome), "UncompletedError"), end.message or "")
        return Completion(
            index=request.index, text="" if failed else json.dumps(values), finish_reason="stop",
            error=error if failed else None, started_at=started, seconds=time.time() - started,
        )  # fmt: skip

    def _execute(self, task: Task, path: Path) -> End | str:
        """How a call has ended, or else how its process has."""
        server = self._server or _Server(self._work)
        self._server, work = server, self._work
        env = call_env(work.paths, task.job_id, work.rank.launcher) | alone_env(work.rank.launcher)
        server.ask({"task": asdict(task), "env": env})
        facts, asked, looked, warned = self._calls.facts, time.monotonic(), time.monotonic(), 0.0
        while (said := server.answer(_POLL)) is None:
            now = time.monotonic()
            if work.drain.reason and not warned:
                warned = now
                server.warn()
            if warned and (work.drain.left() <= 0 or now - warned > facts.warning):
                break
            if server.begun is None and now - asked > work.config.run.rendezvous_timeout:
                break  # in what it imports
            if server.begun is not None and now - server.begun > facts.seconds + _OVER:
                end_call(path, "uncompleted", f"timed-out: it ran for more than {facts.seconds / 60:g} min")
                break
            if now - looked > _LOOK:
                looked = now
                if path.exists() and outcome_of(path) == "cancelled":
                    break
        if isinstance(said, End) and said.outcome is not None:
            return said
        how = server.end()
        self._server = None
        if isinstance(said, End):
            alone = said.message == "SIGTERM" and not self._is_to_leave()
            return "SIGTERM, which it was sent alone, as by itself" if alone else said
        return self._found(path) if path.exists() else how if how != f"exit code {TIMED_OUT}" else "its time limit"


class _Server:
    """The process that runs calls (call_server.py), and its pipes."""

    def __init__(self, work: Work) -> None:
        requests, self._requests = os.pipe()
        self._replies, replies = os.pipe()
        env = marked(dict(os.environ) | share_of_gpus(work) | {"HPCJOBS_ATTEMPT": work.rank.attempt}, work)
        command = [sys.executable, "-u", "-m", "hpcjobs.worker.call_server", str(work.paths.root)]
        self._child = subprocess.Popen(
            [*command, str(requests), str(replies)], env=env, cwd=work.plan.code.cwd, pass_fds=(requests, replies),
            umask=user_umask(), preexec_fn=die_with_parent, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(requests)
        os.close(replies)
        self._program, self._rest = Program(self._child, env), b""
        self.begun: float | None = None

    def ask(self, request: dict[str, Any]) -> None:
        """Ask for a call. That the process is gone shows in the answer; `begun` is set once it runs."""
        self.begun = None
        with contextlib.suppress(BrokenPipeError):
            os.write(self._requests, json.dumps(request).encode() + b"\n")

    def answer(self, seconds: float) -> End | bool | None:
        """How the call has ended; False if the process has; None if neither has by then.

        The pipe alone does not tell: what a function has started may hold its other end.
        """
        ended = self._child.poll() is not None
        if select.select([self._replies], [], [], 0.0 if ended else seconds)[0]:
            self._rest += os.read(self._replies, 1 << 16)
        while b"\n" in self._rest:
            line, _, self._rest = self._rest.partition(b"\n")
            if line != BEGUN:
                return End(**json.loads(line))
            self.begun = time.monotonic()
        return False if ended else None

    def warn(self) -> None:
        """Let the call save its state and leave."""
        with contextlib.suppress(ProcessLookupError):
            self._child.send_signal(signal.SIGUSR2)

    def end(self, seconds: float = _IDLE, hurry: Callable[[], bool] = lambda: False) -> str:
        """End the process, and what it has started; how it ended if it had before, or does in so many seconds."""
        os.close(self._requests)
        os.close(self._replies)
        ends = time.monotonic() + seconds
        while (code := self._program.await_end(_POLL)) is None and time.monotonic() < ends and not hurry():
            pass
        self._program.kill()
        return how_ended(self._child.wait() if code is None else code)
