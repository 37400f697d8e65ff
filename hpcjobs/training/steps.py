"""The record of a step, one line of a rank's journal."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hpcjobs.config import TrainConfig
from hpcjobs.run_folder.journal.journal import broken, journal_lines
from hpcjobs.run_folder.paths import RunPaths


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """A finished step. `step` counts from 1; `loss` is the mean over all trained tokens of its global batch.

    `tokens` are those of all ranks without padding, `rank_tokens` this rank's, `targets` the trained ones; `samples`
    are the row indexes that this rank ran. `eval_loss` is the validation loss after this step, None if it was not
    computed.
    """

    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    targets: int
    tokens_per_s: float
    seconds: float
    eval_loss: float | None
    rank_tokens: int
    samples: list[int]
    rank: int
    attempt: str
    world_size: int
    started_at: float

    def line(self) -> bytes:
        """The JSON line; numbers that are not finite are null."""
        values = {name: _plain(value) for name, value in asdict(self).items()}
        return json.dumps(values, ensure_ascii=True, allow_nan=False).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> StepRecord:
        """The record in a line. Raises a ValueError."""
        try:
            values = json.loads(line)
            record = cls(**values)
        except (TypeError, ValueError) as error:
            raise ValueError(f"not a step record: {error}") from None
        if not isinstance(record.step, int) or record.step < 1:
            raise ValueError(f"step {record.step!r} is no step")
        return record


def _plain(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass
class Curve:
    """The steps that count, by number, and how many were run again after a resume."""

    steps: dict[int, StepRecord] = field(default_factory=dict)
    repeated: int = 0

    @property
    def best(self) -> StepRecord | None:
        """The step with the lowest validation loss, the first of equal ones; None without any."""
        validated = [record for _, record in sorted(self.steps.items()) if record.eval_loss is not None]
        return min(validated, key=lambda record: record.eval_loss or 0.0, default=None)

    def exported(self, train: TrainConfig, steps: int) -> StepRecord | None:
        """The step of which the model is: the last one, or after all `steps` the best one where `train` says so."""
        last = self.steps[max(self.steps)] if self.steps else None
        ended = last is not None and last.step >= steps
        return self.best if ended and train.export == "best" else last


def read_steps(path: Path) -> Iterator[StepRecord]:
    """The records of a journal, in order. Raises a MergeError with the offset of a broken line."""
    for offset, line in journal_lines(path):
        try:
            yield StepRecord.parse(line)
        except ValueError as error:
            raise broken(path, offset, error) from None


def read_curve(paths: RunPaths) -> Curve:
    """The steps of a run from rank 0's journals; of a repeated step the last record counts."""
    curve, newest = Curve(), dict[int, float]()
    for path in paths.journals():
        if not path.stem.endswith("-0"):
            continue
        for record in read_steps(path):
            curve.repeated += record.step in curve.steps
            if record.started_at >= newest.get(record.step, -math.inf):
                curve.steps[record.step], newest[record.step] = record, record.started_at
    return curve
