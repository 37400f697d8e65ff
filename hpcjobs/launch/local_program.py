"""A program on this machine: its ranks, started again as `cluster.restarts` has it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import submitit

from hpcjobs.config.shape import Shape
from hpcjobs.launch.budget import Budget
from hpcjobs.launch.entry import RANK, enter
from hpcjobs.launch.failure import AttemptFiles
from hpcjobs.run_folder.process import end_processes

MONTH_MINUTES = 60 * 24 * 30
# How long an attempt may last when all ranks but the lost one have ended, and how long after the loss (seconds).
_SETTLE, _MOST = 2.0, 60.0
_LOOK_SECONDS = 0.1


class LocalProgram:
    """A program, or the copy with this `index` of an array.

    What an attempt has left running is ended with it, as Slurm does at the end of a step.
    """

    def __init__(self, budget: Budget, shape: Shape, index: int | None = None) -> None:
        self.budget, self.shape, self.index = budget, shape, index
        self._restart, self._place, self._told, self._settled = 0, 0, 0.0, 0.0

    def start(self, place: int = 0) -> None:
        """Start all ranks of the next attempt. Copies in different places have different GPUs."""
        self._place = place
        copy = "" if self.index is None else f"_{self.index}"
        again = f"r{self._restart}" if self._restart else ""
        attempt = f"local{self.budget.number}t{os.getpid()}{copy}{again}"
        os.environ |= {"HPCJOBS_ATTEMPT": attempt, "HPCJOBS_RESTART": str(self._restart)}
        if self.index is not None:
            os.environ |= {"HPCJOBS_INDEX": str(self.index)}
        executor = submitit.LocalExecutor(folder=self.budget.paths.logs)
        gpus = self.shape.gpus_per_node * self.shape.nodes
        executor.update_parameters(
            tasks_per_node=self.shape.ranks, timeout_min=MONTH_MINUTES, stderr_to_stdout=True,
            gpus_per_node=gpus, visible_gpus=_gpus()[place * gpus : (place + 1) * gpus] if place else (),
        )  # fmt: skip
        self._process = executor.submit(enter, RANK, str(self.budget.paths.root))._process
        self._files, self._told, self._settled = AttemptFiles(self.budget.paths, attempt, self.shape.ranks), 0.0, 0.0

    def goes_on(self) -> bool:
        """Whether it runs, or has just been started again. To be called until it does not."""
        if self._process.poll() is None:
            self._end_stuck()
            return True
        end_processes("HPCJOBS_ATTEMPT", self._files.attempt)
        failure = self._files.failure()
        if failure is None or not self.budget.judge(self._files.attempt, self._restart, failure):
            return False
        self._restart += 1
        self.start(self._place)
        return True

    def _end_stuck(self) -> None:
        """End a rank that says nothing and does not end by itself, as one that was stopped with its guard."""
        now = time.monotonic()
        if not self._told and not self._files.told():
            return
        self._told = self._told or now
        self._settled = self._settled or (now if self._files.others_ended(alone=True) else 0.0)
        if (self._settled and now - self._settled > _SETTLE) or now - self._told > _MOST:
            end_processes("HPCJOBS_ATTEMPT", self._files.attempt)


def run_programs(budget: Budget, shape: Shape, indexes: Sequence[int] = ()) -> None:
    """Run a program to its end; with `indexes` the copies of an array, as many at a time as there are GPUs or cores.
    """
    waiting, places = [LocalProgram(budget, shape)], 1
    if indexes:
        os.environ["HPCJOBS_ARRAY_SIZE"] = str(budget.config.cluster.array)
        places = _places(shape, budget.config.cluster.cpus_per_task or 1)
        waiting = [LocalProgram(budget, shape, index) for index in indexes]
    running: dict[int, LocalProgram] = {}
    while (waiting and not budget.cancelled()) or running:
        for place in set(range(places)) - running.keys() if waiting else ():
            if waiting and not budget.cancelled():
                running[place] = waiting.pop(0)
                running[place].start(place)
        running = {place: one for place, one in running.items() if one.goes_on()}
        time.sleep(_LOOK_SECONDS)


def _places(shape: Shape, cores_per_rank: int) -> int:
    """How many copies this machine runs at a time."""
    if each := shape.gpus_per_node * shape.nodes:
        return max(1, len(_gpus()) // each)
    return max(1, len(os.sched_getaffinity(0)) // (shape.ranks * cores_per_rank))


def _gpus() -> list[int]:
    """The numbers of the GPUs that this process may use."""
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return [int(word) for word in visible.split(",") if word.isdigit()]
    return sorted(int(path.name.removeprefix("nvidia")) for path in Path("/dev").glob("nvidia[0-9]*"))
