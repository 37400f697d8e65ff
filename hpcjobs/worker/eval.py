"""eval and generate on a rank: an engine that is fed from the ledger."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from hpcjobs.engines.base import Engine
from hpcjobs.engines.registry import check_task, own_model_engine
from hpcjobs.errors import RendezvousError
from hpcjobs.requests import TaskType
from hpcjobs.run_folder.journal.journal import Journal

if TYPE_CHECKING:
    from hpcjobs.distributed.work import Work
from hpcjobs.run_folder.rank_state import RankState
from hpcjobs.worker.chunk_runner import ChunkRunner

log = logging.getLogger(__name__)


def run_eval(work: Work) -> None:
    """Run this rank's share of an eval or generate run and write its journal. No collectives; nobody waits for a dead
    rank.
    """
    work.heartbeat.enter(RankState.LOADING)
    run_answers(work, make_engine(work))


def run_answers(work: Work, engine: Engine) -> None:
    """Feed an engine from the ledger, until nothing is left."""
    with Journal(work.paths.journal(work.rank.attempt, work.rank.rank)) as journal:
        shift = ChunkRunner(work, journal, engine)
        work.heartbeat.vitals.ready_at = time.time()
        work.heartbeat.enter(RankState.WORKING)
        with shift:
            for completion in engine.stream(shift.requests()):
                shift.record(completion)
    if work.drain.reason:
        work.heartbeat.vitals.ended = f"drained: {work.drain.reason}"
    vitals = work.heartbeat.vitals
    counts = f"{vitals.samples} samples, {vitals.errors} errors"
    counts += f", {vitals.metric_errors} with a metric that failed" if vitals.metric_errors else ""
    log.info("%s: %s", f"drained, {work.drain.reason}" if work.drain.reason else "done", counts)


def make_engine(work: Work) -> Engine:
    """The engine of this run. torch is imported for real models only."""
    model, kind = work.config.model, work.config.task.type
    task: TaskType = work.plan.data.asks or "generate" if kind == "lm_eval" else kind
    if own := own_model_engine(model.engine):
        check_task(own, model.engine, task)
        work.heartbeat.vitals.device = "none"
        return own.from_config(model, work.config.task.generation)
    from hpcjobs.connector import AccelerateConnector, ConnectorOptions
    from hpcjobs.distributed.group import join_group, work_alone
    from hpcjobs.distributed.rendezvous import Rendezvous
    from hpcjobs.engines.loader import torch_dtype

    timeout = work.config.run.rendezvous_timeout
    try:
        join_group(work.rank, Rendezvous.of(work.paths.rendezvous, work.rank, timeout), timeout)
    except RendezvousError as error:  # a rank died at the start: no reason for the others to do nothing
        log.error("%s; going on without the group, which eval does not need", error)
        work_alone(work.rank)
    options = ConnectorOptions(
        revision=model.revision,
        dtype=torch_dtype(model.dtype),
        trust_remote_code=model.trust_remote_code,
        weights=model.weights,
        gpus_per_rank=model.gpus_per_rank,
        timeout=timeout,
        engine=model.engine,
    )
    connector = AccelerateConnector(
        model.name, batch_size=model.batch_size, generation=work.config.task.generation, options=options
    )
    connector.load_model_once()
    work.heartbeat.vitals.device = str(connector.state.device)
    return connector.engine(task=task, deterministic=work.config.run.deterministic)
