"""eval and generate: claim chunks, stream their prompts through an engine, journal what comes, settle the chunks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpcjobs.chunks import ChunkList
from hpcjobs.claims import Claims, Lease
from hpcjobs.data import Inputs, user_columns, user_row
from hpcjobs.engines.base import Source
from hpcjobs.errors import RendezvousError
from hpcjobs.identity import Identity
from hpcjobs.journal import Journal
from hpcjobs.ledger import LeaseWatch, Ledger, Rules
from hpcjobs.metrics import Metric, find_metrics, score_sample
from hpcjobs.prompts import Prompts, sample_seed
from hpcjobs.records import Completion, Record, Request, SampleError

if TYPE_CHECKING:
    from hpcjobs.worker import Work

log = logging.getLogger(__name__)
Stream = Callable[[Source], Iterator[Completion]]
_SYNC_SECONDS = 30.0


def run_eval(work: Work) -> None:
    """This rank's share of an eval or generate run, to its journal. No collectives, no waiting for a dead rank."""
    work.heart.enter("loading")
    stream = make_stream(work)
    with Journal(work.paths.journal(work.rank.attempt, work.rank.rank)) as journal:
        shift = Shift(work, journal)
        work.heart.vitals.ready_at = time.time()
        work.heart.enter("working")
        for completion in stream(shift.requests()):
            shift.record(completion)
    log.info("done: %d samples, %d errors", work.heart.vitals.samples, work.heart.vitals.errors)


def make_stream(work: Work) -> Stream:
    """The engine's stream for this run; only real models import torch."""
    model = work.config.model
    if model.engine == "dummy":
        from hpcjobs.engines.dummy import DummyEngine

        work.heart.vitals.device = "none"
        return DummyEngine(model.dummy_delay).stream
    from hpcjobs.connector import AccelerateConnector, ConnectorOptions
    from hpcjobs.group import join_group, work_alone
    from hpcjobs.model_loader import torch_dtype
    from hpcjobs.rendezvous import Meeting

    timeout = work.config.run.rendezvous_timeout
    try:
        join_group(work.rank, Meeting.of(work.paths.rendezvous, work.rank, timeout), timeout)
    except RendezvousError as error:  # a rank died at the start: no reason for the others to do nothing
        log.error("%s; going on without the group, which eval does not need", error)
        work_alone(work.rank)
    options = ConnectorOptions(
        model.revision, torch_dtype(model.dtype), model.trust_remote_code, model.gpus_per_rank, timeout
    )
    connector = AccelerateConnector(
        model.name, batch_size=model.batch_size, generation=work.config.task.generation, options=options
    )
    connector.load_model_once()
    work.heart.vitals.device = str(connector.state.device)
    return connector.stream


@dataclass
class _Open:
    """A chunk in hand: its lease, the samples that have not come back, and how many were to be run."""

    lease: Lease
    waiting: set[int]
    size: int


class Shift:
    """One rank's work: requests out of claimed chunks, completions back into the journal, chunks settled."""

    def __init__(self, work: Work, journal: Journal) -> None:
        config, rank = work.config, work.rank
        number = work.paths.rounds()[-1]
        self._work, self._journal = work, journal
        self._inputs = Inputs(work.paths.data)
        self._prompts = Prompts(config.task, user_columns(self._inputs.columns))
        self._metrics: list[Metric] = find_metrics(config.task.metrics)
        owner = Lease(0, 0, rank.attempt, rank.rank, rank.host, journal.path.name, Identity.own())
        self._ledger = Ledger(
            Claims(work.paths.round(number)), ChunkList.read(work.paths.chunks(number)), owner,
            LeaseWatch(work.paths.heartbeats, rank, config.run.lease_timeout), (rank.rank, rank.world_size),
            Rules(config.run.sharding == "static", config.run.deterministic),
        )  # fmt: skip
        self._open: dict[int, _Open] = {}
        self._synced = time.monotonic()

    def requests(self) -> Iterator[Request | None]:
        """Requests as the engine asks for them; None while all that is left is in hand or with other ranks."""
        batch = self._work.config.model.batch_size
        while True:
            if len(self._open) >= batch and self._ledger.near_end(batch):
                yield None  # no hoarding where other ranks would go without
            lease = self._ledger.claim()
            if lease:
                yield from self._requests_of(lease)
            elif self._open:
                yield None
            elif self._ledger.over():
                return
            else:
                self._wait()

    def _wait(self) -> None:
        """Other ranks hold what is left: wait for them to settle it or to be lost."""
        if self._work.heart.vitals.state != "waiting":
            self._work.heart.enter("waiting")
        time.sleep(min(0.5, self._work.config.run.heartbeat / 2))

    def _requests_of(self, lease: Lease) -> Iterator[Request | None]:
        todo = self._ledger.todo(lease)
        in_hand = _Open(lease, set(todo), len(todo))
        for index in todo:
            self._open[index] = in_hand
        if not todo:
            self._settle(in_hand)
            return
        if self._work.heart.vitals.state != "working":
            self._work.heart.enter("working")
        for index in todo:
            request = self._request(index)
            if isinstance(request, Completion):
                self.record(request)
            else:
                yield request
        if self._work.config.run.deterministic:
            while not self._open.keys().isdisjoint(todo):  # the batch is drained at the chunk's border
                yield None

    def _request(self, index: int) -> Request | Completion:
        row = self._inputs[index]
        try:
            prompt = self._prompts.prompt(user_row(row))
        except Exception as error:  # a template may raise anything; it is this sample's problem alone
            return Completion.failed(index, SampleError.of(error), time.time())
        return Request(index, row["id"], prompt, sample_seed(self._work.config.run.seed, row["id"]))

    def record(self, completion: Completion) -> None:
        """Journal a completion with its scores, and settle its chunk if it was the last one."""
        in_hand = self._open.pop(completion.index)
        record = self._scored(completion, in_hand.lease)
        self._journal.append(record)
        self._count(record)
        in_hand.waiting.discard(completion.index)
        if not in_hand.waiting:
            self._settle(in_hand)
        elif time.monotonic() - self._synced > _SYNC_SECONDS:
            self._sync()

    def _settle(self, in_hand: _Open) -> None:
        self._sync()  # before anybody is told that the chunk is done
        self._ledger.done(in_hand.lease)
        self._work.heart.vitals.chunks += 1
        self._work.heart.vitals.open -= in_hand.size
        self._work.heart.beat()  # or status would count these samples twice until the next beat

    def _sync(self) -> None:
        self._journal.sync()
        self._synced = time.monotonic()

    def _scored(self, completion: Completion, lease: Lease) -> Record:
        row = self._inputs[completion.index]
        scores, error = dict.fromkeys((metric.name for metric in self._metrics), 0.0), completion.error
        if error is None:
            try:
                asked = user_row(row)
                scores = score_sample(self._metrics, completion.text, self._prompts.target(asked), asked)
            except Exception as problem:  # a user's metric may raise anything
                error = SampleError.of(problem)
        rank = self._work.rank
        return Record(
            completion.index, row["id"], lease.chunk, lease.generation, completion.text, completion.finish_reason,
            completion.prompt_tokens, completion.completion_tokens, rank.rank, rank.attempt,
            round(completion.seconds, 6), round(completion.started_at, 6), scores, error,
        )  # fmt: skip

    def _count(self, record: Record) -> None:
        vitals = self._work.heart.vitals
        vitals.samples += 1
        vitals.open += 1
        vitals.tokens += record.completion_tokens
        vitals.last_index = record.index
        if record.error:
            vitals.errors += 1
            vitals.first_error = (
                vitals.first_error or f"sample {record.id}: {record.error.type}: {record.error.message}"[:400]
            )
