"""The loop: one global batch a step, checkpoints between steps, and an end in order when the allocation ends."""

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
from hpcjobs.training.checkpoints.checkpoint import Checkpoints
from hpcjobs.training.checkpoints.saver import Saver
from hpcjobs.training.checkpoints.state import capture, restore
from hpcjobs.training.data.collate import Batch, collate
from hpcjobs.training.data.order import BatchOrder, Share
from hpcjobs.training.data.tokens import TokenFile
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
# Steps by whose time a rank judges whether another one still fits.
_RECENT = 16
# What a checkpoint has of each weight: itself, and the optimizer's two moments.
_MOMENTS = 3
# A checkpoint may take so many times as long as the last one did.
_SLOWER = 2.0


class TrainError(HpcJobsError):
    """A training that cannot go on by being started again."""

    fatal = True


@dataclass(frozen=True)
class Schedule:
    """Where a training is to go: its samples, their order, how many steps, and how a batch is spread over ranks."""

    tokens: TokenFile
    order: BatchOrder
    steps: int
    batches: BatchPlan


@dataclass
class Times:
    """Seconds that recent steps took."""

    steps: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def next(self, saver: Saver) -> float:
        """What another step, and the checkpoint after it, are expected to take; one in hand is finished before."""
        return max(self.steps, default=0.0) + _SLOWER * (saver.seconds + saver.left())


class Loop:
    """Steps `done` + 1, + 2... of a schedule. All ranks call everything together, in the same order."""

    def __init__(
        self, work: Work, prepared: Prepared, schedule: Schedule, journal: Journal, validation: Validation | None = None
    ) -> None:
        self._milestones = Milestones(work, prepared, schedule.steps)
        self._work, self.prepared, self._schedule, self._journal = work, prepared, schedule, journal
        self._validation = validation
        self._accelerator, self._device = prepared.state.accelerator, prepared.connector.state.device
        self._loss = Loss(prepared.state.plain, self._device)
        self._checkpoints = Checkpoints(work.paths, work.config.train.keep)
        self._trackers = Trackers(work)
        self._trained = [weight for weight in prepared.state.model.parameters() if weight.requires_grad]
        size = sum(weight.numel() * weight.element_size() for weight in self._trained)
        gpu, beside = self._device.type == "cuda", work.config.train.async_checkpoints
        self._saver = Saver(self._checkpoints, beside, gpu, _MOMENTS * size)
        self._times, self.done = Times(), 0
        self._saved: int | None = None  # the last step of which a checkpoint is there, or being written
        tokenizer = prepared.connector.tokenizer
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0

    def resume(self) -> None:
        """Go on from the newest checkpoint that proves whole, where there is one; rank 0 judges for all."""
        found = self._agreed(self._checkpoints.newest() if self._work.rank.is_main else None)
        for said in found.passed_over if self._work.rank.is_main else ():
            log.warning("passed over checkpoint %s", said)
        if found.step is not None:
            restore(
                self.prepared.state, self._work.paths.checkpoint(found.step), self._work.rank.rank,
                self._work.config.run.seed,
            )  # fmt: skip
            self.done = self._saved = self._saver.written = found.step
            log.info("goes on after step %d, from %s", found.step, self._work.paths.checkpoint(found.step).name)
        self._trackers.start(self.done)

    def run(self) -> bool:
        """All steps that are left; False where the allocation ends before: then a checkpoint is there to go on from."""
        self._settle_buckets()
        going = self._agree_to_go_on()
        while self.done < self._schedule.steps and going:
            going = self._step()
            # Before the checkpoint: a start that goes on from that would not come by here again.
            if self._milestones.due(self.done) and self._agreed(self._milestones.missing(self.done)):
                self._milestones.reach(self.done)
            if self.done % self._work.config.train.checkpoint_every == 0:
                self.save()
        if self.done < self._schedule.steps:
            self._work.heart.enter(RankState.DRAINING)
        self.save(whole=True)
        return self.done >= self._schedule.steps

    def save(self, whole: bool = False) -> None:
        """A checkpoint of now, where there is none yet; `whole`: it is there when this returns."""
        state = self._work.heart.vitals.state
        self._work.heart.enter(RankState.SAVING)  # as long as that takes, nobody hangs
        if self._saved != self.done:
            self._journal.sync()  # the steps that the checkpoint stands for
            self._saver.settle()
            snapshot = capture(self.prepared.state)
            if snapshot is not None:
                facts = {"world_size": self._schedule.batches.world, "attempt": self._work.rank.attempt}
                self._saver.begin(self.done, facts, snapshot)
            self._saved = self.done
        if whole:
            self._saver.settle()
        self._agreed(None)  # what follows may end the process: the checkpoint is there before anybody goes on
        self._work.heart.enter(state)

    def close(self) -> None:
        """The journal, the trackers, and a checkpoint that is being written end with the loop."""
        if self._saver.busy:
            self._work.heart.enter(RankState.SAVING)
        try:
            self._saver.settle()
        except Exception:
            log.exception("the last checkpoint was not written; the one before is there")
        self._milestones.close()
        self._journal.close()
        self._trackers.close(self.done >= self._schedule.steps)

    def _step(self) -> bool:
        """One global batch; whether there is room for another."""
        self._saver.check()
        began, started_at, step = time.monotonic(), time.time(), self.done
        rank, batches = self._work.rank, self._schedule.batches
        units = self._schedule.order.share(step, Share(rank.rank, batches.world, batches.micro))
        targets = int(self._schedule.tokens.targets[self._schedule.order.samples(step)].sum())
        total, mine = self._gradients(units, targets)
        learning_rate = float(self.prepared.state.scheduler.get_last_lr()[0])
        self._times.steps.append(time.monotonic() - began)
        told = self._sum([total, mine, 0.0 if self._has_room() else 1.0])
        loss = told[0] / targets
        if not math.isfinite(loss):
            raise TrainError(
                f"the loss of step {step + 1} is {loss}: lower train.learning_rate, or look at its samples; the last "
                f"checkpoint is of step {self._saver.written}"
            )
        norm = self._update()
        self.done = step + 1
        held = self._validate()
        seconds = time.monotonic() - began
        record = StepRecord(
            step=self.done,
            epoch=round(self._schedule.order.epoch(self.done), 6),
            loss=loss,
            learning_rate=learning_rate,
            grad_norm=norm,
            tokens=int(told[1]),
            targets=targets,
            tokens_per_s=round(told[1] / max(seconds, 1e-9), 2),
            seconds=round(seconds, 6),
            eval_loss=held,
            rank_tokens=mine,
            samples=[int(self._schedule.tokens.rows[n]) for part in units for unit in part for n in unit],
            rank=rank.rank,
            attempt=rank.attempt,
            world_size=batches.world,
            started_at=started_at,
        )
        self._tell(record)
        return told[2] == 0

    def _gradients(self, units: Sequence[Sequence[Sequence[int]]], targets: int) -> tuple[float, int]:
        """Forward and backward over this rank's micro batches: (summed loss, tokens).

        DDP and FSDP average over ranks; scaled by their number, the gradient is that of the sum over all tokens of
        the global batch divided by how many of them are learned: the same at any world size.
        """
        model, scale = self.prepared.state.model, self._schedule.batches.world / targets
        total, tokens = 0.0, 0
        for number, part in enumerate(units):
            batch = self._collate(part)
            last = number == len(units) - 1
            with contextlib.nullcontext() if last else self._accelerator.no_sync(model):
                loss = self._loss(model, batch)
                self.prepared.connector.backward(loss * scale)
            total, tokens = total + float(loss.detach()), tokens + batch.tokens
        return total, tokens

    def _collate(self, part: Sequence[Sequence[int]]) -> Batch:
        packed = self._work.config.train.packing
        return collate(part, self._schedule.tokens, self._pad, self._loss.blocks if packed else None)

    def _update(self) -> float:
        """Clip, step, and forget the gradients; their norm before."""
        most = self._work.config.train.clip_norm or math.inf
        norm = self._accelerator.clip_grad_norm_(self._trained, most)
        self.prepared.state.optimizer.step()
        if not self._accelerator.optimizer_step_was_skipped:
            self.prepared.state.scheduler.step()
        self.prepared.state.optimizer.zero_grad()
        full = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        return float(full)

    def _validate(self) -> float | None:
        every = self._work.config.train.eval_every
        if self._validation is None or not (self.done == self._schedule.steps or (every and self.done % every == 0)):
            return None
        self._work.heart.enter(RankState.VALIDATING)
        found = self._validation.loss(self._loss, self.prepared.state, self._sum)
        self._work.heart.enter(RankState.WORKING)
        return found

    def _tell(self, record: StepRecord) -> None:
        """A finished step: to the journal, the heartbeat, the trackers."""
        self._journal.append(record)
        vitals = self._work.heart.vitals
        vitals.samples += len(record.samples)
        vitals.tokens += record.rank_tokens
        vitals.last_index = record.step
        self._trackers.tell(record)

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
        """What rank 0 says, on all ranks; the others' values are not used."""
        import torch.distributed as dist

        told: list[Any] = [value]
        if dist.is_initialized():
            dist.broadcast_object_list(told, src=0)
        agreed: T = told[0]
        return agreed

    def _settle_buckets(self) -> None:
        """One pass whose gradients are thrown away: DDP lays its buckets out anew after its first.

        The order in which ranks' gradients are added depends on that layout; so the first step after a resume would
        round otherwise than the same step of a run that was not interrupted.
        """
        import torch
        from torch.nn.parallel import DistributedDataParallel

        model = self.prepared.state.model
        if not isinstance(model, DistributedDataParallel):
            return
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            shortest = int(self._schedule.tokens.lengths.argmin())
            self.prepared.connector.backward(self._loss(model, self._collate([[shortest]])) * 0.0)
        self.prepared.state.optimizer.zero_grad()
