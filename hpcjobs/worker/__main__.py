"""`python -m hpcjobs.worker RUN`: the entry point of every rank, under a guard process.

submitit's jobs, `sbatch/*.sbatch` and the local supervisor all enter `guard_rank`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

from hpcjobs.distributed.rank import Rank, slurm_job
from hpcjobs.errors import HpcJobsError
from hpcjobs.run_folder.files import stay_private
from hpcjobs.run_folder.launch_files import begin_job
from hpcjobs.run_folder.paths import RunPaths, find_run
from hpcjobs.worker.guard import after_end, guarded, notice
from hpcjobs.worker.run import run_rank
from hpcjobs.worker.stopped import StoppedRank


def guard_rank(run_dir: str, job: str = "") -> None:
    """Run `run_rank(run_dir)` in a child process, and exit with its exit code.

    `job` is the launch and the kind of a Slurm job, `0.work`. If that was cancelled before it began, nothing runs.
    """
    stay_private(Path(run_dir))
    for number in (signal.SIGUSR1, *([] if os.isatty(0) else [signal.SIGHUP])):
        signal.signal(number, lambda number, frame: None)  # it is for the program; a rank must not die of it
    if job and not _wanted(RunPaths(Path(run_dir)), job):
        return notice(f"{job} was cancelled before it began")
    with contextlib.suppress(HpcJobsError):  # the rank itself says what is wrong
        rank = Rank.from_env()
        if rank.launcher != "slurm":  # else an attempt may be named after the process, and the child is another one
            os.environ["HPCJOBS_ATTEMPT"] = rank.attempt
    paths = RunPaths(Path(run_dir))
    stopped = StoppedRank(paths)
    code = guarded(lambda: run_rank(run_dir), lambda code: after_end(paths, code, stopped.why), stopped.watch)
    if code:
        sys.exit(code)
    return None


def _wanted(paths: RunPaths, job: str) -> bool:
    number, _, kind = job.partition(".")
    first = False
    with contextlib.suppress(HpcJobsError):  # the rank itself says what is wrong
        first = Rank.from_env().is_main
    return begin_job(paths, int(number), kind, slurm_job(), first)


def main(argv: list[str] | None = None) -> int:
    """`python -m hpcjobs.worker RUN`: run one rank, for hand-written scripts. Returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    if len(words) != 1 or words[0] in ("-h", "--help"):
        print(
            "usage: srun python -m hpcjobs.worker RUN\n\nRuns this process's share of the run folder RUN.",
            file=sys.stderr,
        )
        return 0 if words in (["-h"], ["--help"]) else 2
    try:
        guard_rank(str(find_run(words[0]).root))
    except HpcJobsError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
