"""`python -m hpcjobs.launch.restarts RUN LAUNCH SRUN ARGS`: what the job of a program with `cluster.restarts` runs.

In the batch script, in the place of srun: a job step for each attempt. So all ranks of one have ended before the next
begins, every rank of that is a new process with the same attempt in its name, and Slurm places it on the nodes that are
left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hpcjobs.config.resolve import read_config
from hpcjobs.config.shape import shape_of
from hpcjobs.distributed.rank import Allocation, allocation
from hpcjobs.errors import HpcJobsError, LaunchError
from hpcjobs.launch import slurm
from hpcjobs.launch.budget import Budget
from hpcjobs.launch.failure import AttemptFiles, Failure
from hpcjobs.launch.spares import Nodes
from hpcjobs.run_folder.files import stay_private
from hpcjobs.run_folder.paths import RunPaths

# How often the step is looked at; how long it may last when all ranks but the lost one have ended, as srun hears
# nothing of a node that is gone; and how long after the loss whatever the others do (seconds).
_LOOK, _SETTLE, _MOST = 0.5, 5.0, 60.0
# How much longer than the ranks it waits for a sign of life of one that is silent: they know better (seconds).
_PATIENCE = 10.0


class Steps:
    """The job steps of a program, one an attempt. `words` are the srun command."""

    def __init__(self, paths: RunPaths, budget: Budget, here: Allocation, words: Sequence[str]) -> None:
        cluster = budget.config.cluster
        self.paths, self.budget, self.here, self.words = paths, budget, here, list(words)
        self.per_node = shape_of(cluster, 1, script=True).ranks_per_node
        self.nodes = Nodes(slurm.host_names(here.nodes), cluster.nodes)
        self._ended, self._stale = "", False

    def run(self) -> int:
        """Run the program until it has ended well, or is not started again; the exit code of the last step."""
        signal.signal(signal.SIGTERM, self._note)
        restart = 0
        while True:
            chosen, attempt = self.nodes.chosen(), self.here.attempt(restart)
            ranks = [name for name in chosen for _ in range(self.per_node)]
            files = AttemptFiles(self.paths, attempt, len(ranks), ranks)
            code, failure = self._step(chosen, restart, attempt, files)
            if failure is None:
                return code
            self.nodes.blame(failure)
            left_out = self.nodes.left_out()
            if not self.budget.judge(attempt, restart, failure, self._ended or self._too_few(), left_out):
                return code or 1
            restart += 1

    def _note(self, number: int, frame: object) -> None:
        self._ended = "the job was ended by SIGTERM"

    def _too_few(self) -> str:
        left = len(self.nodes.chosen())
        if left >= self.nodes.wanted:
            return ""
        gone, wanted = ", ".join(self.nodes.left_out()), self.nodes.wanted
        return f"{gone} is gone, and no spare node is left (--nodes {wanted}-{wanted + 1} would ask for one)"

    def _step(
        self, chosen: Sequence[str], restart: int, attempt: str, files: AttemptFiles
    ) -> tuple[int, Failure | None]:
        env = os.environ | {"HPCJOBS_ATTEMPT": attempt, "HPCJOBS_RESTART": str(restart)}
        srun = subprocess.Popen(self._command(chosen), env=env)
        forced = self._await(srun, files)
        failure = files.failure()
        if failure and failure.silent and not forced:  # a rank that was killed with its guard says no end, either
            failure = replace(failure, silent=failure.silent & slurm.down_nodes(failure.silent))
        self._stale = self._stale or forced or bool(failure and failure.silent)
        return srun.returncode, failure

    def _command(self, chosen: Sequence[str]) -> list[str]:
        """srun on these nodes.

        Once a node is gone Slurm may take the step that was on it to be running, for as long as the job lasts: the next
        ones share the GPUs, cores and memory of the others with it. --mem=0 is all that the job has there, and nothing
        is counted; by --overlap alone, memory is not shared in Slurm 22.05.
        """
        program, *rest = self.words
        where = [f"--nodes={len(chosen)}", f"--ntasks={len(chosen) * self.per_node}", f"--nodelist={','.join(chosen)}"]
        some = where if self.budget.config.cluster.spares else []
        return [program, *some, *(["--overlap", "--mem=0"] if self._stale else []), *rest]

    def _await(self, srun: subprocess.Popen[bytes], files: AttemptFiles) -> bool:
        """Wait for the end of the step; whether it had to be ended, because a node is gone."""
        told = settled = None
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                srun.wait(_LOOK)
                return False
            now = time.monotonic()
            files.watch(self.budget.config.lost_after + _PATIENCE)
            told = told or (now if files.told() else None)
            settled = settled or (now if told and files.others_ended() else None)
            if (settled and now - settled > _SETTLE) or (told and now - told > _MOST):
                self._end(srun)
                return True

    def _end(self, srun: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(LaunchError):
            slurm.end_steps(self.here.job_id)
        with contextlib.suppress(subprocess.TimeoutExpired):
            srun.wait(_SETTLE)
            return
        srun.kill()
        srun.wait()


def main(argv: Sequence[str]) -> int:
    """Run the srun command behind the run folder and the number of the launch; the exit code of the job."""
    run, number, *words = argv
    paths = RunPaths(Path(run))
    stay_private(paths.root)
    try:
        budget = Budget(paths, read_config(paths.config), int(number))
        return Steps(paths, budget, allocation(), words).run()
    except HpcJobsError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
