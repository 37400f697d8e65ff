"""A program on this machine: its ranks, started again as `cluster.restarts` has it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import submitit

from hpcjobs.config.shape import Shape
from hpcjobs.launch.budget import Budget
from hpcjobs.launch.entry import RANK, enter
from hpcjobs.launch.failure import AttemptFiles
from hpcjobs.run_folder.process import end_processes

MONTH_MINUTES = 60 * 24 * 30
# How long an attempt may last when all ranks but the lost one have ended, and how long after the loss (seconds).
_SETTLE, _MOST = 2.0, 60.0


class LocalProgram:
    """One copy of a program; `index` is its number in an array, `gpus` are those that it may use.

    What an attempt has left running is ended with it, as Slurm does at the end of a step.
    """

    def __init__(
        self, budget: Budget, shape: Shape, index: int | None = None, gpus: Sequence[int] | None = None
    ) -> None:
        self.budget, self.shape, self.index, self._gpus = budget, shape, index, gpus
        self._restart, self._told, self._settled = 0, 0.0, 0.0

    def start(self) -> None:
        """Start all ranks of the next attempt."""
        copy = "" if self.index is None else f"_{self.index}"
        again = f"r{self._restart}" if self._restart else ""
        attempt = f"local{self.budget.number}t{os.getpid()}{copy}{again}"
        os.environ |= {"HPCJOBS_ATTEMPT": attempt, "HPCJOBS_RESTART": str(self._restart)}
        if self.index is not None:
            os.environ |= {"HPCJOBS_INDEX": str(self.index)}
        executor = submitit.LocalExecutor(folder=self.budget.paths.logs)
        executor.update_parameters(
            tasks_per_node=self.shape.ranks, timeout_min=MONTH_MINUTES, stderr_to_stdout=True,
            gpus_per_node=self.shape.gpus_per_node * self.shape.nodes, visible_gpus=self._gpus or (),
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
        self.start()
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
