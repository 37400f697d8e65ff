"""The worker: what one rank runs, whoever started it.

submitit, `sbatch/*.sbatch` (through `python -m hpcjobs.worker RUN`), torchrun and the debug executor all
enter `run_rank`.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from hpcjobs.config import Config
from hpcjobs.config.resolve import read_config
from hpcjobs.distributed.allocation import audit_allocation
from hpcjobs.distributed.drain import WARNING_SECONDS, Allocation, Drain, drain_margin
from hpcjobs.distributed.rank import Rank, allotted, ending, refuse_lone_process
from hpcjobs.distributed.watchdog import Limits, Watch
from hpcjobs.distributed.work import Work
from hpcjobs.engines.hub import at_commit, go_offline
from hpcjobs.errors import HpcJobsError, UsageError
from hpcjobs.run_folder.heartbeat import Heartbeat, Vitals
from hpcjobs.run_folder.logs import rank_log
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.run_folder.process import Identity
from hpcjobs.run_folder.provenance import changed_since
from hpcjobs.run_folder.snapshot import import_as_planned
from hpcjobs.worker.by_kind import RANKS
from hpcjobs.worker.signals import Terminated, terminable

log = logging.getLogger(__name__)


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
    if not plan.kind.program:
        import_as_planned(paths, plan.code)
        go_offline(plan.model, os.environ)
    vitals = Vitals(
        rank=rank.rank,
        attempt=rank.attempt,
        host=rank.host,
        world_size=rank.world_size,
        identity=Identity.own().values(),
    )
    with rank_log(paths.rank_log(rank.attempt, rank.rank), rank.rank):
        heartbeat = Heartbeat(paths.heartbeat(rank.attempt, rank.rank), vitals, config.run.heartbeat)
        drain = Drain(_allocation(config))
        limits = Limits(config.run.progress_timeout, config.run.lease_timeout)
        with _said(), heartbeat as heart:
            watch = Watch(heart, drain, limits, paths.stacks(rank.attempt, rank.rank))
            with terminable(drain), watch:
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
                _run_job(Work(paths=paths, config=config, plan=plan, rank=rank, heart=heart, drain=drain, watch=watch))


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
    RANKS[work.plan.kind.name](work)


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
