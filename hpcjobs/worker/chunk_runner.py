"""eval and generate: claim chunks, stream their requests through an engine, journal the results, settle the chunks."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

from hpcjobs.engines.base import Engine
from hpcjobs.errors import HpcJobsError, JournalError
from hpcjobs.metrics import Score, metric_errors
from hpcjobs.plugins import contained
from hpcjobs.requests import Completion, Likelihood, Request, SampleError
from hpcjobs.run_folder.inputs import Inputs
from hpcjobs.run_folder.journal.journal import Journal
from hpcjobs.run_folder.journal.record import Record
from hpcjobs.run_folder.ledger.chunks import ChunkList
from hpcjobs.run_folder.ledger.claims import Claims, Lease
from hpcjobs.run_folder.ledger.ledger import Ledger, Rules
from hpcjobs.run_folder.ledger.takeover import LeaseWatch
from hpcjobs.run_folder.process import Identity
from hpcjobs.run_folder.rank_state import RankState
from hpcjobs.tasks.eval_task import eval_task_of
from hpcjobs.worker.fair_share import FairShare

if TYPE_CHECKING:
    from hpcjobs.distributed.work import Work

log = logging.getLogger(__name__)
_SYNC_SECONDS = 30.0
# How many recent samples are used to estimate whether another one fits.
_RECENT = 64
# After this many hangs with a sample running, the sample is to blame.
_HANGS = 3
# How long the watchdog waits for the lock, which a hanging main thread may hold.
_LOCK_SECONDS = 2.0


@dataclass(kw_only=True)
class _Open:
    """A chunk in progress: its lease, its unfinished samples, and how many were to run."""

    lease: Lease
    waiting: set[int]
    size: int
    whole: list[int] = field(default_factory=list)
    lost: bool = False
    claimed: float = field(default_factory=time.monotonic)


class HungError(HpcJobsError):
    """A sample with which several ranks in turn made no progress."""


class _ChunksTaken(SystemExit):
    """The watchdog has given this rank's chunks back; further results would not count."""


class ChunkRunner:
    """Runs chunks on one rank: makes requests from claimed chunks, journals completions, and settles the chunks.

    Within its `with` block it drains: near the end of the allocation it starts nothing that it cannot finish, and gives
    the rest back at the end. The lock is held for changes of chunks and journal, never while a sample runs, so that the
    watchdog can give everything back whatever the engine is doing.
    """

    def __init__(self, work: Work, journal: Journal, engine: Engine) -> None:
        config, rank = work.config, work.rank
        number = work.paths.rounds()[-1]
        self._work, self._journal, self._engine = work, journal, engine
        self._inputs = Inputs(work.paths.data)
        self._task = eval_task_of(config, self._inputs.columns, work.paths)
        owner = Lease(
            chunk=0,
            generation=0,
            attempt=rank.attempt,
            rank=rank.rank,
            host=rank.host,
            journal=journal.path.name,
            identity=Identity.own(),
        )
        self._ledger = Ledger(
            Claims(work.paths.round(number)), ChunkList.read(work.paths.chunks(number)), owner,
            LeaseWatch(work.paths.heartbeats, rank.succeeds, config.run.lease_timeout), rank.walk,
            Rules(config.run.sharding == "static", config.run.deterministic),
        )  # fmt: skip
        shared = not config.run.deterministic and config.run.sharding != "static"
        self._share = FairShare(work.paths, rank, self._ledger) if shared else None
        self._open: dict[int, _Open] = {}
        self._begun: dict[int, float] = {}
        self._took: deque[float] = deque(maxlen=_RECENT)
        self._whole_chunks = config.run.deterministic  # then a chunk that is left half done has to be redone
        self._lock, self._left = threading.Lock(), False
        self._synced = time.monotonic()

    def __enter__(self) -> ChunkRunner:
        self._work.watch.let_go = self._let_go
        self._work.drain.engaged = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._work.drain.engaged = False
        if kind is None or not issubclass(kind, JournalError | OSError):  # then nothing more can be written there
            self._let_go(f"drained: {self._work.drain.reason}" if kind is None else f"its rank failed: {error}", False)

    def requests(self) -> Iterator[Request | None]:
        """Requests as the engine asks for them; None while all remaining samples are running here or on other ranks."""
        while self._admits():
            batch = self._engine.batch_size
            if self._share and self._open and self._share.is_held(len(self._open)):
                yield None  # no hoarding where other ranks would go without
                continue
            if len(self._open) >= batch and self._ledger.near_end(batch):
                yield None
            lease = self._claim()
            if lease:
                yield from self._requests_of(lease)
            elif self._open:
                yield None
            elif self._ledger.over() or self._work.rank.in_array:
                return  # a worker of an array holds no nodes that others' leftovers could need
            else:
                self._wait()

    def _admits(self) -> bool:
        """Whether a sample that starts now should finish before the allocation ends, judging by recent samples."""
        drain = self._work.drain
        if drain.has_room(max(self._took, default=0.0)):
            return True
        if self._work.heartbeat.vitals.state != RankState.DRAINING:
            log.info("draining, %s: %d samples in hand, %.0f s left", drain.reason, len(self._begun), drain.left())
            self._work.heartbeat.enter(RankState.DRAINING)
        return False

    def _goes_on(self) -> bool:
        """Whether to start the next sample of a chunk. With whole chunks that was decided when it was claimed."""
        return self._admits() if not self._whole_chunks else self._work.drain.reason is None or self._admits()

    def _claim(self) -> Lease | None:
        with self._exclusive():
            return self._ledger.claim()

    def _wait(self) -> None:
        """Wait: other ranks hold the remaining chunks, and may finish them or be lost."""
        if self._work.heartbeat.vitals.state != RankState.WAITING:
            self._work.heartbeat.enter(RankState.WAITING)
        time.sleep(min(0.5, self._work.config.run.heartbeat / 2))

    def _requests_of(self, lease: Lease) -> Iterator[Request | None]:
        with self._exclusive():
            todo = self._ledger.todo(lease)
            in_hand = _Open(lease=lease, waiting=set(todo), size=len(todo))
            self._open |= dict.fromkeys(todo, in_hand)
            if not todo:
                return self._settle(in_hand)
        if self._work.heartbeat.vitals.state not in (RankState.WORKING, RankState.DRAINING):
            self._work.heartbeat.enter(RankState.WORKING)
        for index in todo:
            if not self._goes_on() or self._lost(in_hand):
                return None
            self._begun[index] = time.monotonic()
            request = self._request(index, in_hand.lease)
            if isinstance(request, Completion):
                self.record(request)
            else:
                yield request
        if self._work.config.run.deterministic:
            while not self._begun.keys().isdisjoint(todo):  # the batch is drained at the chunk's border
                yield None
        return None

    def _lost(self, in_hand: _Open) -> bool:
        """Whether this process was stopped for so long that another rank took the chunk over."""
        if in_hand.lost or not self._work.watch.stalled():
            return in_hand.lost
        with self._exclusive():
            for each in {id(each): each for each in self._open.values()}.values():
                if self._ledger.superseded(each.lease):
                    log.warning("chunk %d was taken over while this rank stood still", each.lease.chunk)
                    self._forget(each)
        return in_hand.lost

    def _forget(self, in_hand: _Open) -> None:
        """Drop the samples of a lost chunk that have not started. Running ones are still recorded."""
        for index in in_hand.waiting - self._begun.keys():
            self._open.pop(index, None)
        in_hand.waiting &= self._begun.keys()
        in_hand.lost = True
        self._work.heartbeat.vitals.open -= len(in_hand.whole)

    def _request(self, index: int, lease: Lease) -> Request | Completion:
        try:
            row = self._inputs[index]
            if (times := lease.suspects.count(index)) >= _HANGS:
                raise HungError(f"{times} ranks have made no progress with it: run.progress_timeout")
            with contained():
                return self._task.request(row)
        except Exception as error:  # a template may raise anything, or this machine lack a row's time zone
            return Completion.failed(index, SampleError.of(error), time.time())

    def record(self, completion: Completion) -> None:
        """Journal a completion with its scores. The last one of a chunk settles it."""
        record = self._scored(completion, self._open[completion.index].lease)
        with self._exclusive():
            in_hand = self._open.pop(completion.index)
            self._journal.append(record)
            begun = self._begun.pop(completion.index)
            if not self._whole_chunks:
                self._took.append(time.monotonic() - begun)
            in_hand.waiting.discard(completion.index)
            in_hand.whole.append(completion.index)
            self._count(record, in_hand)
            if not in_hand.waiting and not in_hand.lost:
                self._settle(in_hand)
            elif time.monotonic() - self._synced > _SYNC_SECONDS:
                self._sync()

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the lock. Raises _ChunksTaken if the watchdog has given the chunks back."""
        with self._lock:
            if self._left:
                raise _ChunksTaken(0)
            yield

    def _let_go(self, why: str, hung: bool) -> bool:
        """Give back every chunk, with its finished samples. False if the lock cannot be acquired."""
        if not self._lock.acquire(timeout=_LOCK_SECONDS):
            return False
        try:
            if not self._left:
                self._left = True
                self._release(why, self._begun.keys() if hung else ())
        finally:
            self._lock.release()
        return True

    def _release(self, why: str, suspects: Collection[int]) -> None:
        in_hand = {each.lease.chunk: each for each in self._open.values() if not each.lost}
        if in_hand:
            self._sync()
        for each in in_hand.values():
            self._ledger.release(each.lease, each.whole, why, sorted(each.waiting.intersection(suspects)))
            self._work.heartbeat.vitals.open -= len(each.whole)

    def _settle(self, in_hand: _Open) -> None:
        self._sync()  # before anybody is told that the chunk is done
        self._ledger.done(in_hand.lease)
        if self._whole_chunks:
            self._took.append(time.monotonic() - in_hand.claimed)
        self._work.heartbeat.vitals.chunks += 1
        self._work.heartbeat.vitals.open -= in_hand.size
        self._work.heartbeat.write()  # or status would count these samples twice until the next beat

    def _sync(self) -> None:
        self._journal.sync()
        self._synced = time.monotonic()

    def _scored(self, completion: Completion, lease: Lease) -> Record:
        (name,), scores = self._inputs.ids(completion.index, completion.index + 1), self._scores(completion)
        rank, likelihood = self._work.rank, completion.likelihood or Likelihood((), (), ())
        return Record(
            index=completion.index,
            id=name,
            chunk=lease.chunk,
            generation=lease.generation,
            completion=completion.text,
            finish_reason=completion.finish_reason if completion.error is None else "error",
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            rank=rank.rank,
            attempt=rank.attempt,
            seconds=round(completion.seconds, 6),
            started_at=round(completion.started_at, 6),
            scores={name: score.number for name, score in scores.items()},
            error=completion.error,
            metric_errors=metric_errors(scores),
            completions=completion.texts,
            choice_logprobs=likelihood.logprobs,
            choice_greedy=likelihood.greedy,
            choice_tokens=likelihood.tokens,
            statistics={name: score.statistics for name, score in scores.items() if score.statistics is not None},
        )

    def _scores(self, completion: Completion) -> dict[str, Score]:
        """The scores by metric. Where a metric, or the sample's target, raises anything, there is none."""
        try:
            row = self._inputs[completion.index]
        except Exception:  # which is the completion's own error
            row = {}
        if completion.error is not None:
            return self._task.failed(row)
        try:
            with contained():
                return self._task.judge(completion, row)
        except Exception as error:
            return dict.fromkeys(self._task.failed(row), Score.none(error))

    def _count(self, record: Record, in_hand: _Open) -> None:
        vitals = self._work.heartbeat.vitals
        vitals.samples += 1
        vitals.open += not in_hand.lost
        vitals.tokens += record.completion_tokens
        vitals.last_index = record.index
        vitals.errors += record.error is not None
        vitals.metric_errors += bool(record.metric_errors)
        found = [f"{record.error.type}: {record.error.message}"] if record.error else []
        found += [f"metric {one.metric}: {one.type}: {one.message}" for one in record.metric_errors]
        if found and not vitals.first_error:
            vitals.first_error = f"sample {record.id}: {found[0]}"[:400]
