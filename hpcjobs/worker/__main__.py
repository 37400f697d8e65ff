"""`python -m hpcjobs.worker RUN`: the entry point of every rank, under a guard process.

submitit's jobs, `sbatch/*.sbatch` and the local supervisor all enter `guard_rank`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from hpcjobs.distributed.rank import Rank
from hpcjobs.errors import HpcJobsError
from hpcjobs.run_folder.paths import RunPaths, find_run
from hpcjobs.worker.guard import after_end, guarded
from hpcjobs.worker.run import run_rank
from hpcjobs.worker.stopped import StoppedRank


def guard_rank(run_dir: str) -> None:
    """Run `run_rank(run_dir)` in a child process, and exit with its exit code."""
    with contextlib.suppress(HpcJobsError):  # the rank itself says what is wrong
        rank = Rank.from_env()
        if rank.launcher != "slurm":  # else an attempt may be named after the process, and the child is another one
            os.environ["HPCJOBS_ATTEMPT"] = rank.attempt
    paths = RunPaths(Path(run_dir))
    stopped = StoppedRank(paths)
    code = guarded(lambda: run_rank(run_dir), lambda code: after_end(paths, code, stopped.why), stopped.watch)
    if code:
        sys.exit(code)


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
