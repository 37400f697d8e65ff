"""RankProcess: a real rank of a trial on files, with or without its guard, and the signals that it is sent."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks.chaos_life import Life
from hpcjobs.run_folder.heartbeat import read_heartbeat
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import process_start
from tests.runs import guarded_rank, process_state, rank_elsewhere, rank_env, rank_main, start_process, wait_for

# Busy machines are slow: only what takes longer than this has hung (seconds).
PATIENCE = 180.0
# Ranks that see each other's deaths; that do not, as on other nodes; and those whose guards give back what they held.
KINDS = {"plain": rank_main, "elsewhere": rank_elsewhere, "guarded": guarded_rank}
# How a rank ends that SIGTERM asked to, before or after it had anything to drain: also before Python had a handler.
_BY_GUARD = 128 + signal.SIGKILL
_ASKED = (0, 128 + signal.SIGTERM, -signal.SIGTERM)


@dataclass(kw_only=True)
class RankProcess(Life):
    """`process` is the rank's guard where it has one, else the rank itself."""

    process: BaseProcess
    heartbeat: Path
    guarded: bool

    @classmethod
    def start(cls, paths: RunPaths, env: Mapping[str, str], kind: str) -> RankProcess:
        process = start_process(quietly, kind, str(paths.root), env)
        rank, attempt = int(env["RANK"]), env["HPCJOBS_ATTEMPT"]
        return cls(
            journal=paths.journal(attempt, rank), heartbeat=paths.heartbeat(attempt, rank), process=process,
            guarded=kind == "guarded",
        )  # fmt: skip

    @property
    def alive(self) -> bool:
        return self.process.is_alive() and self.killed is None

    @property
    def pid(self) -> int | None:
        """The rank's own; None while its guard has not begun it, as far as one can see, and when it is dead."""
        if not self.guarded:
            return self.process.pid
        vitals = read_heartbeat(self.heartbeat)
        if vitals is None or process_start(vitals.identity["pid"]) != vitals.identity["started"]:
            return None
        return int(vitals.identity["pid"])

    def signal(self, number: signal.Signals) -> None:
        """To the rank, which may just have ended."""
        _send(self.pid, number)

    def stop(self, rng: random.Random) -> None:
        """SIGSTOP of the rank, at times of its guard too."""
        self.signal(signal.SIGSTOP)
        if self.guarded and rng.random() < 0.3:
            _send(self.process.pid, signal.SIGSTOP)
        self.stopped = True

    def wake(self, now: int) -> None:
        self.stopped, self.woken = False, now
        self.signal(signal.SIGCONT)
        _send(self.process.pid, signal.SIGCONT)

    def drain(self, rng: random.Random) -> None:
        """SIGTERM of the rank, or of its guard, which passes it on."""
        _send(rng.choice((self.pid, self.process.pid)), signal.SIGTERM)
        self.drained = True

    def kill(self, now: int, rng: random.Random) -> None:
        """SIGKILL of the rank, of its guard, or of both, and wait until the rank is dead."""
        self.killed, self.stopped, pid = now, False, self.pid
        victim = rng.choice(("rank", "guard", "both")) if self.guarded and pid else "guard"
        if victim != "guard":
            _send(pid, signal.SIGKILL)
            _send(self.process.pid, signal.SIGCONT)
        if victim == "both":
            time.sleep(rng.uniform(0.0, 0.01))
        if victim != "rank":
            self.process.kill()
        wait_for(lambda: process_state(pid) in ("Z", ""), "a killed rank to be dead", PATIENCE)

    def settle(self) -> None:
        """Wait for the end, which must be a good one unless a signal made it."""
        self.process.join(PATIENCE)
        code = self.process.exitcode
        assert code is not None, f"{self} did not end in {PATIENCE} s"
        if self.guarded and self.woken is not None and code == _BY_GUARD:  # it was the last one, and stood still
            self.killed = time.time_ns()
        right = self.killed is not None or code == 0 or (self.drained and code in _ASKED)
        assert right, f"{self} ended with {code}"

    def end(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.kill()
        self.process.join()


def start_ranks(paths: RunPaths, world: int, attempt: str, kind: str) -> list[RankProcess]:
    """A new attempt, of a kind of `KINDS`."""
    return [RankProcess.start(paths, rank_env(rank, world, attempt), kind) for rank in range(world)]


def quietly(kind: str, run: str, env: Mapping[str, str]) -> None:
    """What the process does; that ranks die is what this is about, their guards need not say so."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    KINDS[kind](run, env)


def _send(pid: int | None, number: signal.Signals) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
