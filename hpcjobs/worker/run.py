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
from hpcjobs.config.resolve import read_config
from hpcjobs.distributed.allocation import audit_allocation
from hpcjobs.distributed.drain import WARNING_SECONDS, Allocation, Drain, drain_margin
from hpcjobs.distributed.rank import Rank, allotted, ending, refuse_lone_process
from hpcjobs.distributed.watchdog import Limits, Watch
from hpcjobs.engines.hub import at_commit, go_offline
from hpcjobs.errors import HpcJobsError, UsageError
from hpcjobs.plan.draft import Plan
from hpcjobs.ranklog import rank_log
from hpcjobs.run_folder.heartbeat import Heartbeat, Vitals
from hpcjobs.run_folder.paths import RunPaths, find_run
from hpcjobs.run_folder.process import Identity
from hpcjobs.run_folder.provenance import changed_since
from hpcjobs.run_folder.snapshot import import_as_planned
from hpcjobs.worker.guard import guard_rank

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """What a job is given: the run, this rank, and where to tell how it goes."""

    paths: RunPaths
    config: Config
    plan: Plan
    rank: Rank
    heart: Heartbeat
    drain: Drain
    watch: Watch


def run_rank(run_dir: str) -> None:
    """Do this process's share of a run; returns when there is nothing left for it to do."""
    paths = RunPaths(Path(run_dir))
    if not paths.plan.is_file():
        raise UsageError(f"{run_dir} is not a run folder: it has no plan.json (on this node)")
    refuse_lone_process()
    rank = Rank.from_env()
    plan = Plan.read(paths.plan)
    config = at_commit(read_config(paths.config), plan.model)
    rank.limit_threads(os.environ, (config.cluster.cpus_per_task or 1) if config.run.deterministic else None)
    os.environ.update(rank.own_gpus(os.environ, config.model.gpus_per_rank))
    if plan.job != "script":
        import_as_planned(paths, plan.code)
        go_offline(plan.model, os.environ)
    vitals = Vitals(rank.rank, rank.attempt, rank.host, rank.world_size, Identity.own().values())
    with rank_log(paths.rank_log(rank.attempt, rank.rank), rank):
        heartbeat = Heartbeat(paths.heartbeat(rank.attempt, rank.rank), vitals, config.run.heartbeat)
        drain = Drain(_allocation(config))
        limits = Limits(config.run.progress_timeout, config.run.lease_timeout)
        with _said(), heartbeat as heart:
            watch = Watch(heart, drain, limits, paths.stacks(rank.attempt, rank.rank))
            with _terminable(drain), watch:
                log.info(
                    "rank %d of %d on %s, attempt %s, by %s",
                    rank.rank,
                    rank.world_size,
                    rank.host,
                    rank.attempt,
                    rank.launcher,
                )
                if plan.job != "script":
                    _audit(rank, config)
                _run_job(Work(paths, config, plan, rank, heart, drain, watch))


def _allocation(config: Config) -> Allocation:
    end, minutes = ending(), config.cluster.minutes
    return Allocation(end.at, drain_margin(config.run.drain_margin, minutes), WARNING_SECONDS, end.kill_wait)


def _audit(rank: Rank, config: Config) -> None:
    for idle in audit_allocation(rank, allotted(), config.model.gpus_per_rank, config.cluster.allow_idle):
        if rank.local_rank == 0:
            log.warning("%s", idle)


def _run_job(work: Work) -> None:
    if work.rank.is_main and (said := changed_since(work.plan.code)):
        log.warning("%s", said)
    if work.plan.job == "script":
        from hpcjobs.worker.script import run_script

        run_script(work)
    elif work.plan.job == "train":
        from hpcjobs.worker.train import run_train

        run_train(work)
    else:
        from hpcjobs.worker.shift import run_eval

        run_eval(work)


class Terminated(SystemExit):
    """Slurm or the user asked this rank to end. No Exception: engines take those for a sample's fault."""

    def __init__(self, reason: str) -> None:
        super().__init__(143)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class _terminable:
    """SIGTERM and USR2 go to the drain. A rank that has nothing to drain ends by an exception in its main thread.

    submitit ignores SIGTERM, so that a cancelled rank would work on until it is killed, and on USR2 it would end
    rank 0 alone.
    """

    def __init__(self, drain: Drain) -> None:
        self._drain, self._warned = drain, False

    def __enter__(self) -> None:
        self._before = {signal.SIGTERM: signal.signal(signal.SIGTERM, self._end)}
        self._before[signal.SIGUSR2] = signal.signal(signal.SIGUSR2, self._warn)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _warn(self, number: int, frame: FrameType | None) -> None:
        self._drain.warn()
        if not self._warned:  # Slurm warns this process and its guard, which passes it on
            log.warning("Slurm says that this job's time is nearly over")
        self._warned = True

    def _end(self, number: int, frame: FrameType | None) -> None:
        first = self._drain.reason is None
        self._drain.terminate()
        if self._drain.engaged:
            if first:
                log.warning("SIGTERM: what is in hand is finished as far as %.0f s allow", self._drain.left())
            return
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated(self._drain.reason or "")


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
        guard_rank(str(find_run(words[0]).root))
    except HpcJobsError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
