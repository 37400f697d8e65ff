"""The training loop: one global batch per step, checkpoints between steps, and an orderly stop at the time limit."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from hpcjobs.errors import HpcJobsError
from hpcjobs.run_folder.journal.journal import Journal
from hpcjobs.run_folder.rank_state import RankState
from hpcjobs.training.batches import BatchPlan
from hpcjobs.training.checkpoints.checkpoint import Checkpoints, proof
from hpcjobs.training.checkpoints.saver import CheckpointSaver
from hpcjobs.training.checkpoints.state import capture, restore
from hpcjobs.training.data.collate import Batch, collate
from hpcjobs.training.data.order import BatchOrder, Share
from hpcjobs.training.data.tokens import TokenFile
from hpcjobs.training.finite import Finite, not_finite
from hpcjobs.training.loss import Loss
from hpcjobs.training.milestones import Milestones
from hpcjobs.training.setup import Prepared
from hpcjobs.training.steps import StepRecord
from hpcjobs.training.trackers.threads import Trackers
from hpcjobs.training.validation import Validation

if TYPE_CHECKING:
    from hpcjobs.distributed.work import Work

T = TypeVar("T")
log = logging.getLogger(__name__)
# How many recent steps are used to estimate whether another one fits.
_RECENT = 16
# Values per weight in a checkpoint: the weight and the optimizer's two moments.
_MOMENTS = 3
# A checkpoint may take this many times as long as the last one.
_SLOWER = 2.0


class TrainError(HpcJobsError):
    """A training that a restart cannot help."""

    fatal = True


@dataclass(frozen=True)
class Schedule:
    """The samples, their order, the number of steps, and how a batch is split over ranks."""

    tokens: TokenFile
    order: BatchOrder
    steps: int
    batches: BatchPlan


@dataclass
class Times:
    """How long recent steps took (seconds)."""

    steps: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def next(self, saver: CheckpointSaver) -> float:
        """How long another step and the checkpoint after it will take, including a write in progress."""
        return max(self.steps, default=0.0) + _SLOWER * (saver.seconds + saver.left())


class Loop:
    """Runs steps `done` + 1, + 2... of a schedule. All ranks make all calls together, in the same order."""

    def __init__(
        self, work: Work, prepared: Prepared, schedule: Schedule, journal: Journal, validation: Validation | None = None
    ) -> None:
        self._milestones = Milestones(work, prepared, schedule.steps)
        self._work, self.prepared, self._schedule, self._journal = work, prepared, schedule, journal
        self._validation = validation
        self._accelerator, self._device = prepared.state.accelerator, prepared.connector.state.device
        self._loss = Loss(prepared.state.plain, self._device, prepared.packed)
        self._checkpoints = Checkpoints(work.paths, work.config.train.keep, work.config.train.needs_best)
        self._trackers = Trackers(work)
        named = prepared.state.model.named_parameters()
        self._trained = {name.removeprefix("module."): weight for name, weight in named if weight.requires_grad}
        size = sum(weight.numel() * weight.element_size() for weight in self._trained.values())
        gpu, beside = self._device.type == "cuda", work.config.train.async_checkpoints
        self._saver = CheckpointSaver(self._checkpoints, beside, gpu, _MOMENTS * size)
        self._times, self.done = Times(), 0
        self._saved: int | None = None  # the last step of which a checkpoint is there, or being written
        self._best, self._eval_loss = math.inf, math.inf  # the lowest validation loss, and that of the last step
        tokenizer = prepared.connector.tokenizer
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self._idle = [[int(schedule.tokens.lengths.argmin())]]  # for passes that count nothing

    def resume(self) -> None:
        """Restore the newest checkpoint that verifies, if there is one; rank 0 decides for all."""
        found = self._agreed(self._checkpoints.newest() if self._work.rank.is_main else None)
        for reason in found.passed_over if self._work.rank.is_main else ():
            log.warning("passed over checkpoint %s", reason)
        if found.step is not None:
            restore(
                self.prepared.state, self._work.paths.checkpoint(found.step), self._work.rank.rank,
                self._work.config.run.seed,
            )  # fmt: skip
            self.done = self._saved = self._saver.written = found.step
            log.info("goes on after step %d, from %s", found.step, self._work.paths.checkpoint(found.step).name)
            best = self._agreed(self._checkpoints.best(found.step))
            self._best = best.eval_loss if best else math.inf
        self._trackers.start(self.done)

    def run(self) -> bool:
        """Run all remaining steps. False if the allocation ends before that: a checkpoint has been written then."""
        self._settle_buckets()
        going = self._agree_to_go_on()
        while self.done < self._schedule.steps and going:
            going = self._step()
            # Before the checkpoint: a start that resumes from it would not reach this again.
            if self._milestones.due(self.done) and self._agreed(self._milestones.missing(self.done)):
                self._check_weights()
                self._milestones.reach(self.done)
            better, self._best = self._eval_loss < self._best, min(self._best, self._eval_loss)
            if self.done % self._work.config.train.checkpoint_every == 0 or (
                better and self._work.config.train.needs_best
            ):
                self.save()
        if self.done < self._schedule.steps:
            self._work.heartbeat.enter(RankState.DRAINING)
        self.save(whole=True)
        return self.done >= self._schedule.steps

    def save(self, whole: bool = False) -> None:
        """Write a checkpoint, unless there is one of this step. With `whole`, wait until it is written."""
        state = self._work.heartbeat.vitals.state
        self._work.heartbeat.enter(RankState.SAVING)  # as long as that takes, nobody hangs
        if self._saved != self.done:
            self._check_weights()
            self._journal.sync()  # the steps that the checkpoint stands for
            self._saver.settle()
            snapshot = capture(self.prepared.state)
            if snapshot is not None:
                facts = {"world_size": self._schedule.batches.world, "attempt": self._work.rank.attempt}
                loss = {"eval_loss": self._eval_loss} if math.isfinite(self._eval_loss) else {}
                self._saver.begin(self.done, facts | loss, snapshot)
            self._saved = self.done
        if whole:
            self._saver.settle()
        self._agreed(None)  # what follows may end the process: the checkpoint is there before anybody goes on
        self._work.heartbeat.enter(state)

    def take_best(self) -> None:
        """With `train.export: best`, take the state of the lowest validation loss. No step may follow."""
        if self._work.config.train.export != "best":
            return
        best = self._agreed(self._checkpoints.best(self.done))
        if best is None or best.step == self.done:
            return
        folder = self._work.paths.checkpoint(best.step)
        if wrong := self._agreed(proof(folder) if self._work.rank.is_main else None):
            raise TrainError(
                f"the best checkpoint, {folder}, is not whole, and model/ is not written: {wrong}; next: remove "
                f"it, and hpcjobs resume {self._work.paths.root} makes the model of the best one that is left"
            )
        restore(self.prepared.state, folder, self._work.rank.rank, self._work.config.run.seed)
        log.info("model/ is of step %d, validation loss %.4f", best.step, best.eval_loss)

    def _check_weights(self) -> None:
        """All ranks together: raise a NotFiniteError rather than save weights that are no numbers."""
        bad = self._sum(not_finite(list(self._trained.values())))
        Finite(self.done, self._saver.written).check_weights(list(self._trained), bad)

    def close(self) -> None:
        """Close journal and trackers, and finish a checkpoint that is being written."""
        if self._saver.busy:
            self._work.heartbeat.enter(RankState.SAVING)
        try:
            self._saver.settle()
        except Exception:
            log.exception("the last checkpoint was not written; the one before is there")
        self._milestones.close()
        self._journal.close()
        self._trackers.close(self.done >= self._schedule.steps)

    def _step(self) -> bool:
        """Run one global batch; returns whether there is time for another."""
        self._saver.check()
        began, started_at, step = time.monotonic(), time.time(), self.done
        rank, batches = self._work.rank, self._schedule.batches
        units = self._schedule.order.share(step, Share(rank.rank, batches.world, batches.micro))
        targets = int(self._schedule.tokens.targets[self._schedule.order.samples(step)].sum())
        total, mine = self._gradients(units, targets)
        learning_rate = float(self.prepared.state.scheduler.get_last_lr()[0])
        self._times.steps.append(time.monotonic() - began)
        sums = self._sum([total, mine, 0.0 if self._has_room() else 1.0])
        loss = sums[0] / targets
        finite = Finite(step + 1, self._saver.written)
        finite.check("the loss", loss)
        norm = self._update(finite)
        self.done = step + 1
        eval_loss = self._validate(finite)
        self._eval_loss = math.inf if eval_loss is None else eval_loss
        seconds = time.monotonic() - began
        record = StepRecord(
            step=self.done,
            epoch=round(self._schedule.order.epoch(self.done), 6),
            loss=loss,
            learning_rate=learning_rate,
            grad_norm=norm,
            tokens=int(sums[1]),
            targets=targets,
            tokens_per_s=round(sums[1] / max(seconds, 1e-9), 2),
            seconds=round(seconds, 6),
            eval_loss=eval_loss,
            rank_tokens=mine,
            samples=[int(self._schedule.tokens.rows[n]) for part in units for unit in part for n in unit],
            rank=rank.rank,
            attempt=rank.attempt,
            world_size=batches.world,
            started_at=started_at,
        )
        self._log_step(record)
        return sums[2] == 0

    def _gradients(self, units: Sequence[Sequence[Sequence[int]]], targets: int) -> tuple[float, int]:
        """Forward and backward over this rank's micro batches: (summed loss, tokens).

        DDP and FSDP average over ranks. Scaled by the number of ranks, the gradient is that of the summed loss divided
        by the trained tokens of the global batch: the same at any world size. A rank whose micro batch is empty runs a
        sample that counts nothing, because the others wait for it.
        """
        model, scale = self.prepared.state.model, self._schedule.batches.world / targets
        total, tokens = 0.0, 0
        for number, part in enumerate(units):
            batch, counts = self._collate(part or self._idle), bool(part)
            last = number == len(units) - 1
            with contextlib.nullcontext() if last else self._accelerator.no_sync(model):
                loss = self._loss(model, batch)
                self.prepared.connector.backward(loss * (scale * counts))
            total, tokens = total + counts * float(loss.detach()), tokens + counts * batch.tokens
        return total, tokens

    def _collate(self, part: Sequence[Sequence[int]]) -> Batch:
        return collate(part, self._schedule.tokens, self._pad, self._work.config.train.packing)

    def _update(self, finite: Finite) -> float:
        """Clip gradients, run the optimizer and reset them; returns the gradient norm before clipping."""
        most = self._work.config.train.clip_norm or math.inf
        norm = self._accelerator.clip_grad_norm_(list(self._trained.values()), most)
        full = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        if self._accelerator.scaler is None:  # with one, such a step is skipped and the scale lowered
            finite.check("the gradient norm", full)
        self.prepared.state.optimizer.step()
        if not self._accelerator.optimizer_step_was_skipped:
            self.prepared.state.scheduler.step()
        self.prepared.state.optimizer.zero_grad()
        return full

    def _validate(self, finite: Finite) -> float | None:
        every = self._work.config.train.eval_every
        if self._validation is None or not (self.done == self._schedule.steps or (every and self.done % every == 0)):
            return None
        self._work.heartbeat.enter(RankState.VALIDATING)
        found = self._validation.loss(self._loss, self.prepared.state, self._sum)
        finite.check("the validation loss", found)
        self._work.heartbeat.enter(RankState.WORKING)
        return found

    def _log_step(self, record: StepRecord) -> None:
        """Record a finished step in journal, heartbeat and trackers."""
        self._journal.append(record)
        vitals = self._work.heartbeat.vitals
        vitals.samples += len(record.samples)
        vitals.tokens += record.rank_tokens
        vitals.last_index = record.step
        self._trackers.log_step(record)

    def _has_room(self) -> bool:
        return self._work.drain.has_room(self._times.next(self._saver))

    def _agree_to_go_on(self) -> bool:
        return self._sum([0.0 if self._has_room() else 1.0])[0] == 0

    def _sum(self, values: Sequence[float]) -> list[float]:
        """Sums over all ranks, in float64."""
        import torch
        import torch.distributed as dist

        found = torch.tensor(values, dtype=torch.float64, device=self._device)
        if dist.is_initialized():
            dist.all_reduce(found)
        summed: list[float] = found.tolist()
        return summed

    def _agreed(self, value: T | None) -> T:
        """Broadcast rank 0's value to all ranks; the others' values are not used."""
        import torch.distributed as dist

        box: list[Any] = [value]
        if dist.is_initialized():
            dist.broadcast_object_list(box, src=0)
        agreed: T = box[0]
        return agreed

    def _settle_buckets(self) -> None:
        """Run one pass and discard its gradients: DDP rebuilds its buckets after the first one.

        The order in which gradients are summed depends on the buckets, so without this the first step after a resume
        would round differently from the same step of an uninterrupted run.
        """
        import torch
        from torch.nn.parallel import DistributedDataParallel

        model = self.prepared.state.model
        if not isinstance(model, DistributedDataParallel):
            return
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            self.prepared.connector.backward(self._loss(model, self._collate(self._idle)) * 0.0)
        self.prepared.state.optimizer.zero_grad()
