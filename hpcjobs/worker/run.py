"""run_rank: what one rank runs, under any launcher.

submitit, `sbatch/*.sbatch` (through `python -m hpcjobs.worker RUN`), torchrun and the debug executor all enter it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path

from hpcjobs.config import Config
from hpcjobs.config.resolve import read_config
from hpcjobs.distributed.drain import WARNING_SECONDS, Allocation, Drain, drain_margin
from hpcjobs.distributed.gpus import audit_allocation, own_gpus
from hpcjobs.distributed.rank import Rank, job_end, refuse_lone_process, slurm_resources
from hpcjobs.distributed.watchdog import Limits, Watchdog
from hpcjobs.distributed.work import Work
from hpcjobs.engines.hub import at_commit, go_offline
from hpcjobs.errors import HpcJobsError, UsageError
from hpcjobs.plugins import contained, limit_time
from hpcjobs.run_folder.heartbeat import Heartbeat, Vitals
from hpcjobs.run_folder.logs import rank_log
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.run_folder.process import Identity
from hpcjobs.run_folder.provenance import changed_since
from hpcjobs.run_folder.snapshot import import_as_planned
from hpcjobs.run_folder.trust import check_trusted
from hpcjobs.worker.as_planned import check_as_planned
from hpcjobs.worker.by_kind import RANKS
from hpcjobs.worker.signals import SignalHandlers, Terminated

log = logging.getLogger(__name__)


def run_rank(run_dir: str) -> None:
    """Run this process's share of a run. Returns when there is nothing left for it to do.

    Raises an HpcJobsError.
    """
    paths = RunPaths(Path(run_dir))
    if not paths.plan.is_file():
        raise UsageError(f"{run_dir} is not a run folder: it has no plan.json (on this node)")
    check_trusted(paths.root)
    refuse_lone_process()
    rank = Rank.from_env()
    plan = Plan.read(paths.plan)
    config = at_commit(read_config(paths.config), plan.model)
    limit_time(config.run.metric_timeout)
    rank.limit_threads(os.environ, (config.cluster.cpus_per_task or 1) if config.run.deterministic else None)
    os.environ.update(own_gpus(rank, os.environ, config.model.gpus_per_rank))
    if not plan.kind.program:
        import_as_planned(paths, plan.code)
        go_offline(plan.model, os.environ)
    vitals = Vitals(
        rank=rank.rank,
        attempt=rank.attempt,
        host=rank.host,
        world_size=rank.world_size,
        identity=Identity.own().values(),
        index=rank.index if plan.kind.alone else None,
    )
    with rank_log(paths.rank_log(rank.attempt, rank.rank), rank.rank):
        # Ranks of a program are missed soon: what one has written must show at once on a network file system too.
        flags = os.O_DSYNC if plan.kind.alone else 0
        heartbeat = Heartbeat(paths.heartbeat(rank.attempt, rank.rank), vitals, config.run.heartbeat, flags)
        drain = Drain(_allocation(config))
        # A program may take as long as its job: how long is its user's business.
        progress = math.inf if plan.kind.program else config.run.progress_timeout
        limits = Limits(progress, config.run.lease_timeout)
        with _logged(), heartbeat as heartbeat:
            watch = Watchdog(heartbeat, drain, limits, paths.stacks(rank.attempt, rank.rank))
            with SignalHandlers(drain), watch:
                log.info(
                    "rank %d of %d on %s, attempt %s, by %s",
                    rank.rank,
                    rank.world_size,
                    rank.host,
                    rank.attempt,
                    rank.launcher,
                )
                if not plan.kind.program:
                    _audit(rank, config)
                _run_job(
                    Work(
                        paths=paths, config=config, plan=plan, rank=rank, heartbeat=heartbeat, drain=drain, watch=watch
                    )
                )


def _allocation(config: Config) -> Allocation:
    end, minutes = job_end(), config.cluster.minutes
    return Allocation(end.at, drain_margin(config.run.drain_margin, minutes), WARNING_SECONDS, end.kill_wait)


def _audit(rank: Rank, config: Config) -> None:
    for idle in audit_allocation(rank, slurm_resources(), config.model.gpus_per_rank, config.cluster.allow_idle):
        if rank.local_rank == 0:
            log.warning("%s", idle)


def _run_job(work: Work) -> None:
    if work.rank.is_main and (message := changed_since(work.plan.code)):
        log.warning("%s", message)
    if not work.plan.kind.program:
        check_as_planned(work)
    with contained() if work.plan.kind.unit == "answers" and not work.plan.kind.program else contextlib.nullcontext():
        RANKS[work.plan.kind.name](work)


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    """Log an error that ends the rank, with a traceback if it is unexpected."""
    try:
        yield
    except (HpcJobsError, Terminated) as error:
        log.error("%s", error)
        raise
    except Exception as error:
        log.exception("the rank ends with %s", type(error).__name__)
        raise
