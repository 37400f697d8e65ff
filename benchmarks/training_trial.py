"""TrainingTrial: a training on files, its guarded ranks, and the faults that meet them at chosen moments. No launch."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.training_setting import TrainSetting, differences
from hpcjobs.merge.train import merge_train
from hpcjobs.run_folder.heartbeat import read_heartbeats
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.rank_state import RankState
from tests.disks import Disk
from tests.trainings import TrainingRanks, last_step, logs_of

FAULTS = (
    "kill", "kill", "guard", "both", "all", "stop", "stop", "wake", "suspend", "term", "disk", "disk", "tokens",
    "checkpoint", "checkpoint", "model", "torn", "heartbeat", "shape",
)  # fmt: skip
MOMENTS = ("start", "start", "tokens", "step", "step", "step", "checkpoint", "checkpoint", "export")
# A stopped rank may hold a job for `run.lease_timeout` and this; a start that ends in none of these times has hung (s).
SLACK, PATIENCE = 15.0, 150.0
_DAMAGE = ("truncated", "gone", "flipped")


@dataclass
class Start:
    """One start of the trial: its ranks and when it began."""

    ranks: TrainingRanks
    world: int

    def guard(self, rank: int) -> int:
        return self.ranks.guard(rank)

    def rank(self, rank: int) -> int | None:
        """The rank's own process, also before its first heartbeat; None where there is none."""
        return child_of(self.guard(rank))

    def send(self, rank: int, number: signal.Signals) -> None:
        if pid := self.rank(rank):
            _send(pid, number)


class TrainingTrial:
    """A run of a setting; what befalls it is drawn from `rng`. `disk` is the file system that it is on."""

    def __init__(self, paths: RunPaths, disk: Disk, rng: random.Random, setting: TrainSetting) -> None:
        self.paths, self.counts, self.problems, self.said = paths, Counter[str](), list[str](), list[str]()
        self._disk, self._rng, self._setting = disk, rng, setting
        self._worlds, self._starts = {setting.ranks}, 0
        self._acts: dict[str, Callable[[Start], float | None]] = {
            "kill": self._kill, "guard": self._guard, "both": self._both, "all": self._all, "stop": self._stop,
            "wake": self._wake, "suspend": self._suspend, "term": self._term, "disk": self._fill,
        }  # fmt: skip

    def run(self, faults: tuple[str, ...]) -> None:
        """Each fault in a start of its own, then undisturbed starts until the run is complete."""
        world = self._setting.ranks
        for name in faults:
            if name in ("tokens", "checkpoint", "model", "torn", "heartbeat"):
                self._damage(name)
            elif name == "shape":
                world = self._rng.choice([one for one in (1, 2, 3) if one != world])
            else:
                self._disturbed(name, world)
            self.said.append(name)
        for _ in range(2):
            if self._undisturbed(world):
                break
        self.problems += differences(self.paths, self._setting, self._worlds == {self._setting.ranks})

    def _disturbed(self, name: str, world: int) -> None:
        moment = self._rng.choice(MOMENTS)
        with self._start(world) as start:
            self._await_moment(start, moment)
            codes = self._ended(start, self._acts[name](start) or PATIENCE, name, moment)
        self.counts[name] += 1
        self.said.append(f"{moment}:{codes}")
        self._disk.clear()
        if codes and not any(codes) and not self._drained(start) and not self.paths.model.exists():
            self.problems.append(f"{name} at {moment}: all ranks ended well, and there is no model")
        if name == "disk" and any(codes) and "No space left" not in logs_of(self.paths):
            self.problems.append(f"disk full at {moment}: ended with {codes}, and nobody says so")

    @contextlib.contextmanager
    def _start(self, world: int) -> Iterator[Start]:
        self._starts += 1
        self._worlds.add(world)
        ranks = TrainingRanks(self.paths, world, f"t{self._starts}")
        with ranks:
            try:
                yield Start(ranks, world)
            finally:
                for rank in range(world):  # what is still stopped must not outlive the block
                    for pid in (child_of(ranks.guard(rank)), ranks.guard(rank)):
                        if pid and ranks.code(rank) is None:
                            _send(pid, signal.SIGKILL)

    def _undisturbed(self, world: int) -> bool:
        """Whether a start that nothing happens to completes the run; it must end well."""
        with self._start(world) as start:
            codes = self._ended(start, PATIENCE, "nothing", "the end")
        if any(codes):
            self.problems.append(f"an undisturbed start ended with {codes}: {logs_of(self.paths)[-1500:]}")
            return True
        return merge_train(self.paths).complete

    def _ended(self, start: Start, bound: float, name: str, moment: str) -> list[int]:
        end = time.monotonic() + bound
        while time.monotonic() < end:
            codes = [start.ranks.code(rank) for rank in range(start.world)]
            if None not in codes:
                return [code for code in codes if code is not None]
            time.sleep(0.02)
        self.problems.append(f"{name} at {moment}: held for over {bound:.0f} s: {codes}")
        self.counts["held"] += 1
        return []

    def _drained(self, start: Start) -> bool:
        mine = [one for one in read_heartbeats(self.paths.heartbeats) if one.attempt == start.ranks.attempt]
        return any(one.state == RankState.DRAINED for one in mine)

    def _await_moment(self, start: Start, moment: str) -> None:
        """Until the moment is there, or the start has ended, or a minute has passed."""
        root, journal = self.paths.root, self.paths.journal(start.ranks.attempt, 0)
        if moment == "start":
            time.sleep(self._rng.uniform(0.0, 2.5))
            return
        step = self._rng.randint(1, self._setting.steps)
        seen: dict[str, Callable[[], bool]] = {
            "tokens": lambda: _half_made(self.paths.inputs, "tokens"),
            "step": lambda: last_step(journal) >= step,
            "checkpoint": lambda: _half_made(self.paths.checkpoints, "step"),
            "export": lambda: _half_made(root, "model") or _half_made(root, "adapter"),
        }
        end = time.monotonic() + 60.0
        while not seen[moment]() and time.monotonic() < end and start.ranks.code(0) is None:
            time.sleep(0.0005)
        time.sleep(self._rng.choice((0.0, 0.0, self._rng.uniform(0.0, 0.02))))

    def _some(self, start: Start) -> list[int]:
        return self._rng.sample(range(start.world), self._rng.randint(1, start.world))

    def _kill(self, start: Start) -> None:
        start.send(self._rng.randrange(start.world), signal.SIGKILL)

    def _guard(self, start: Start) -> None:
        _send(start.guard(self._rng.randrange(start.world)), signal.SIGKILL)

    def _both(self, start: Start) -> None:
        for rank in self._some(start):
            start.send(rank, signal.SIGKILL)
            _send(start.guard(rank), signal.SIGKILL)

    def _all(self, start: Start) -> None:
        for rank in range(start.world):
            start.send(rank, signal.SIGKILL)

    def _term(self, start: Start) -> None:
        for rank in self._some(start):
            _send(start.guard(rank), signal.SIGTERM)

    def _stop(self, start: Start) -> float:
        """Ranks that nobody wakes: their guards end them, or the others."""
        for rank in self._some(start):
            start.send(rank, signal.SIGSTOP)
        return self._setting.lease_timeout + SLACK

    def _wake(self, start: Start) -> None:
        """Ranks that are woken, before or after the others have missed them."""
        stopped = {rank: start.rank(rank) for rank in self._some(start)}
        for pid in stopped.values():
            if pid:
                _send(pid, signal.SIGSTOP)
        time.sleep(self._rng.uniform(0.2, 1.6) * self._setting.lease_timeout)
        for pid in stopped.values():
            if pid:
                _send(pid, signal.SIGCONT)

    def _suspend(self, start: Start) -> None:
        """All of it, guards too, as `scontrol suspend` does."""
        everyone = [pid for rank in range(start.world) for pid in (start.guard(rank), start.rank(rank)) if pid]
        for pid in everyone:
            _send(pid, signal.SIGSTOP)
        time.sleep(self._rng.uniform(0.5, 2.0) * self._setting.lease_timeout)
        for pid in everyone:
            _send(pid, signal.SIGCONT)

    def _fill(self, start: Start) -> None:
        """The disk is full, or nearly, for as long as this start lasts."""
        self._disk.fill(self._rng.choice((0, self._rng.randrange(200_000), self._rng.randrange(3_000_000))))

    def _damage(self, name: str) -> None:
        """Damage one file of a kind, as a disk does."""
        newest = sorted(self.paths.checkpoints.glob("step-*"))[-1:]
        files = {
            "tokens": [*self.paths.inputs.glob("*tokens*")],
            "checkpoint": [one for folder in newest for one in folder.iterdir()],
            "model": [*self.paths.model.glob("*.safetensors"), *self.paths.adapter.glob("*.safetensors")],
            "torn": self.paths.journals(),
            "heartbeat": [*self.paths.heartbeats.glob("*.json")],
        }[name]
        if not files:
            return
        file = self._rng.choice(sorted(files))
        self.counts["damaged"] += 1
        if name == "torn":
            with file.open("ab") as journal:
                journal.write(b'{"step": 7, "lo')
        else:
            damage(file, self._rng.choice(_DAMAGE), self._rng)


def damage(file: Path, how: str, rng: random.Random) -> None:
    """Truncate, remove or change one bit of a file."""
    content = bytearray(file.read_bytes())
    if how == "gone" or not content:
        file.unlink()
    elif how == "truncated":
        os.truncate(file, rng.randrange(len(content)))
    else:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)


def child_of(pid: int) -> int | None:
    """The first child of a process; None where there is none."""
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    return None


def _half_made(folder: Path, name: str) -> bool:
    """Whether something of this name is being written in `folder`."""
    with contextlib.suppress(OSError):
        return any(one.startswith(f".{name}") for one in os.listdir(folder))
    return False


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
