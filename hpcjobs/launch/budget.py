"""Whether a program of which a rank has failed is started again, on the allocation that it has."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from hpcjobs.config import Config
from hpcjobs.distributed.rank import job_end
from hpcjobs.launch.failure import Failure
from hpcjobs.run_folder.attempts import FailedAttempt
from hpcjobs.run_folder.launch_files import LaunchFiles
from hpcjobs.run_folder.paths import RunPaths


@dataclass(frozen=True)
class Budget:
    """The restarts of one copy of a program in launch `number`: `cluster.restarts` for each allocation."""

    paths: RunPaths
    config: Config
    number: int

    def judge(self, attempt: str, restart: int, failure: Failure, no: str = "", left_out: Sequence[str] = ()) -> bool:
        """Record that an attempt has failed, and whether another one follows. `no` is a reason against it."""
        restarts = self.config.cluster.restarts
        no = no or self._against(restart, failure)
        record = FailedAttempt(
            attempt=attempt, restart=restart, restarts=restarts, rank=failure.rank, host=failure.host, why=failure.why,
            again=not no, then=no, left_out=list(left_out),
        )  # fmt: skip
        record.record(self.paths)
        print(f"hpcjobs: {record}", flush=True)
        return record.again

    def cancelled(self) -> bool:
        """Whether the launch is to end."""
        return LaunchFiles(self.paths).marked(self.number, "cancelled", "void")

    def _against(self, restart: int, failure: Failure) -> str:
        restarts = self.config.cluster.restarts
        if self.cancelled():
            return "cancelled"
        if failure.fatal:
            return "another start would fail in the same way"
        if restart >= restarts:
            return f"restart {restart} of {restarts} was the last" if restarts else "cluster.restarts is 0"
        return "the time limit is near" if self._is_late() else ""

    def _is_late(self) -> bool:
        """Whether the program was warned of the time limit already, so that another start would not be."""
        warn, end = self.config.cluster.warn, job_end().at
        return warn is not None and end is not None and end - time.time() < warn.before
