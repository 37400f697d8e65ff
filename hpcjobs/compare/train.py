"""compare for train runs: their values, configs, and losses step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hpcjobs.config.resolve import read_config
from hpcjobs.errors import UsageError
from hpcjobs.metrics.bootstrap import Floats
from hpcjobs.run_folder.metrics_file import TrainFacts
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.training.outcome import Training, read_training
from hpcjobs.training.step_samples import StepSamples, read_step_samples
from hpcjobs.training.steps import StepRecord

# Losses that differ by more than this differ by more than rounding in a step or two.
BEYOND = 1e-5
SECTIONS = ("model", "data", "task", "train", "run")
# Keys that always differ between runs.
_OWN = ("run.name", "run.root")
LOSSES = ("loss", "eval_loss", "best_eval_loss")


@dataclass(frozen=True)
class TrainSide:
    """One of the two train runs, finished or not; `config` has its values by dotted key."""

    paths: RunPaths
    plan: Plan
    config: dict[str, object]
    training: Training
    step_samples: dict[int, StepSamples]

    @classmethod
    def read(cls, paths: RunPaths) -> TrainSide:
        """Read a run from its journals, merged or not. Raises a UsageError before its first step, and a MergeError if a
        journal is broken.
        """
        training = read_training(paths)
        if not training.curve.steps:
            raise UsageError(f"{paths.root} has not finished a step yet; next: hpcjobs status {paths.root}")
        config = read_config(paths.config).model_dump(mode="json")
        values = dict(_dotted({section: config[section] for section in SECTIONS}))
        return cls(paths, Plan.read(paths.plan), values, training, read_step_samples(paths, training.curve))

    @property
    def records(self) -> list[StepRecord]:
        """The steps that count, in order."""
        return [self.training.curve.steps[step] for step in sorted(self.training.curve.steps)]

    @property
    def world_sizes(self) -> list[int]:
        """The world sizes it ran with, in order; several if it was resumed with another shape."""
        return list(dict.fromkeys(record.world_size for record in self.records))

    @cached_property
    def values(self) -> dict[str, float | None]:
        """Its losses, speed and counts by name; None for those it does not have."""
        file = self.training.file
        train = file.train or TrainFacts()
        whole = len(self.step_samples) == len(self.training.curve.steps)
        found = {name: file.metrics[name]["value"] if name in file.metrics else None for name in LOSSES}
        speed = {name: getattr(train, name) for name in ("tokens_per_s", "tokens_per_s_per_rank", "seconds")}
        read = sum(step_samples.samples for step_samples in self.step_samples.values()) if whole else None
        return found | {"tokens": file.counts.tokens} | speed | {
            "steps": file.counts.accepted, "samples": train.samples, "samples_read": read,
        }  # fmt: skip

    def step_of(self, name: str) -> int | None:
        """The step of a loss."""
        metrics = self.training.file.metrics
        return metrics[name]["step"] if name in metrics else None


def _dotted(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Nested sections as dotted keys; a list is one value."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@dataclass(frozen=True)
class Curves:
    """Both losses at their common `steps`, in order, shape (steps,); NaN if not finite."""

    steps: npt.NDArray[np.int64]
    a: Floats
    b: Floats

    @property
    def first_difference(self) -> int | None:
        """The first step at which the losses are not identical."""
        return self._first((self.a != self.b) & ~(np.isnan(self.a) & np.isnan(self.b)))

    @property
    def first_beyond(self) -> int | None:
        """The first step at which the losses differ by more than BEYOND, or only one is finite."""
        return self._first(~(np.abs(self.b - self.a) <= BEYOND) & ~(np.isnan(self.a) & np.isnan(self.b)))

    @property
    def greatest(self) -> int | None:
        """The position in `steps` of the largest difference; None if no step has both losses."""
        apart = np.abs(self.b - self.a)
        return int(np.nanargmax(apart)) if np.isfinite(apart).any() else None

    def _first(self, found: npt.NDArray[np.bool_]) -> int | None:
        return int(self.steps[found.argmax()]) if found.any() else None


@dataclass(frozen=True)
class Batches:
    """How many common steps have known samples on both sides, how many have the same, and the first that differs."""

    compared: int
    same: int
    first_other: int | None


@dataclass(frozen=True)
class TrainComparison:
    """Two train runs, the config keys in which they differ, and their curves.

    `batches` is None if the data sets differ: row numbers then mean nothing.
    """

    a: TrainSide
    b: TrainSide
    config: dict[str, tuple[object, object]]
    curves: Curves
    batches: Batches | None

    @property
    def metrics(self) -> list[str]:
        """The values that may have a gate: those that both runs have."""
        names = (*LOSSES, "tokens_per_s")
        return [name for name in names if self.a.values[name] is not None and self.b.values[name] is not None]

    def steps(self) -> Iterator[dict[str, object]]:
        """The common steps, with the records of both sides."""
        for step in self.curves.steps.tolist():
            yield {"step": step} | {
                letter: _plain(side.training.curve.steps[step]) for letter, side in (("a", self.a), ("b", self.b))
            }


def _plain(record: StepRecord) -> dict[str, float | None]:
    names = ("loss", "eval_loss", "learning_rate", "grad_norm", "tokens", "seconds", "world_size")
    return {name: getattr(record, name) for name in names}


def compare_trainings(a: TrainSide, b: TrainSide) -> TrainComparison:
    """Compare two train runs."""
    names = [name for name in dict.fromkeys((*a.config, *b.config)) if name not in _OWN]
    config = {name: (a.config.get(name), b.config.get(name)) for name in names}
    common = sorted(a.training.curve.steps.keys() & b.training.curve.steps.keys())
    same_data = a.plan.data.sha256 == b.plan.data.sha256
    return TrainComparison(
        a, b, {name: values for name, values in config.items() if values[0] != values[1]},
        Curves(np.array(common, np.int64), _losses(a, common), _losses(b, common)),
        _batches(a, b, common) if same_data else None,
    )  # fmt: skip


def _losses(side: TrainSide, steps: list[int]) -> Floats:
    return np.array([side.training.curve.steps[step].loss for step in steps], np.float64)  # None becomes NaN


def _batches(a: TrainSide, b: TrainSide, steps: list[int]) -> Batches:
    known = [step for step in steps if step in a.step_samples and step in b.step_samples]
    pairs = {step: (a.step_samples[step], b.step_samples[step]) for step in known}
    other = [step for step, (x, y) in pairs.items() if (x.samples, x.mark) != (y.samples, y.mark)]
    return Batches(len(known), len(known) - len(other), other[0] if other else None)
