"""The worker: what one rank runs, whoever started it.

submitit, `sbatch/*.sbatch` (through `python -m hpcjobs.worker RUN`), torchrun and the debug executor all
enter `run_rank`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from hpcjobs.config import Config
from hpcjobs.errors import HpcJobsError, UsageError
from hpcjobs.heartbeat import Heartbeat, Vitals
from hpcjobs.identity import Identity
from hpcjobs.paths import RunPaths, find_run
from hpcjobs.plan import Plan
from hpcjobs.rank import Rank, refuse_lone_process
from hpcjobs.ranklog import rank_log
from hpcjobs.resolve import read_config

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """What a job is given: the run, this rank, and where to tell how it goes."""

    paths: RunPaths
    config: Config
    plan: Plan
    rank: Rank
    heart: Heartbeat


def run_rank(run_dir: str) -> None:
    """Do this process's share of a run; returns when there is nothing left for it to do."""
    paths = RunPaths(Path(run_dir))
    if not paths.plan.is_file():
        raise UsageError(f"{run_dir} is not a run folder: it has no plan.json (on this node)")
    refuse_lone_process()
    rank = Rank.from_env()
    rank.limit_threads(os.environ)
    config, plan = read_config(paths.config), Plan.read(paths.plan)
    os.environ.update(rank.own_gpus(os.environ, config.model.gpus_per_rank))
    if plan.code.get("cwd") and plan.code["cwd"] not in sys.path:
        sys.path.append(plan.code["cwd"])  # where the user's own metrics were found when planning
    vitals = Vitals(rank.rank, rank.attempt, rank.host, rank.world_size, Identity.own().values())
    with rank_log(paths.rank_log(rank.attempt, rank.rank), rank):
        heartbeat = Heartbeat(paths.heartbeat(rank.attempt, rank.rank), vitals, config.run.heartbeat)
        with _said(), _terminable(), heartbeat as heart:
            log.info(
                "rank %d of %d on %s, attempt %s, by %s",
                rank.rank,
                rank.world_size,
                rank.host,
                rank.attempt,
                rank.launcher,
            )
            _run_job(Work(paths, config, plan, rank, heart))


def _run_job(work: Work) -> None:
    if work.plan.job == "script":
        from hpcjobs.jobs.script import run_script

        run_script(work)
    else:
        from hpcjobs.jobs.eval import run_eval

        run_eval(work)


class Terminated(SystemExit):
    """Slurm or the user asked this rank to end. No Exception: engines take those for a sample's fault."""

    def __init__(self, reason: str) -> None:
        super().__init__(143)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class _terminable:
    """SIGTERM as an exception in the main thread: journals are closed and the last heartbeat is written.

    submitit ignores SIGTERM, so that a cancelled rank would work on until it is killed.
    """

    def __enter__(self) -> None:
        self._before = {signal.SIGTERM: signal.signal(signal.SIGTERM, self._end)}
        self._before[signal.SIGUSR2] = signal.signal(signal.SIGUSR2, self._warn)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @staticmethod
    def _warn(number: int, frame: FrameType | None) -> None:
        # submitit would end rank 0 here, with no need: what is journalled is safe whenever the end comes
        log.warning("Slurm says that this job's time is nearly over")

    @staticmethod
    def _end(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated("ended by SIGTERM: cancelled, preempted or out of time")


@contextlib.contextmanager
def _said() -> Iterator[None]:
    """An error that ends the rank goes to its log, with a traceback where it is not one of ours."""
    try:
        yield
    except (HpcJobsError, Terminated) as error:
        log.error("%s", error)
        raise
    except Exception as error:
        log.exception("the rank ends with %s", type(error).__name__)
        raise


def main(argv: list[str] | None = None) -> int:
    """`python -m hpcjobs.worker RUN`: one rank, for scripts that are submitted by hand."""
    words = sys.argv[1:] if argv is None else argv
    if len(words) != 1 or words[0] in ("-h", "--help"):
        print(
            "usage: srun python -m hpcjobs.worker RUN\n\nRuns this process's share of the run folder RUN.",
            file=sys.stderr,
        )
        return 0 if words in (["-h"], ["--help"]) else 2
    try:
        run_rank(str(find_run(words[0]).root))
    except HpcJobsError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
