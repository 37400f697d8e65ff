"""compare for train runs: what two trainings came to, their configs, and their losses step by step."""

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
from hpcjobs.training.step_samples import StepSamples, read_seen
from hpcjobs.training.steps import StepRecord

# Two losses further apart than this differ by more than rounding does in a step or two.
BEYOND = 1e-5
SECTIONS = ("model", "data", "task", "train", "run")
# The name and the place of a run are its own.
_OWN = ("run.name", "run.root")
LOSSES = ("loss", "eval_loss", "best_eval_loss")


@dataclass(frozen=True)
class TrainSide:
    """One of the two trainings, as far as it has come; `config` has its values by dotted key."""

    paths: RunPaths
    plan: Plan
    config: dict[str, object]
    training: Training
    seen: dict[int, StepSamples]

    @classmethod
    def read(cls, paths: RunPaths) -> TrainSide:
        """The run by its journals, merged or not; a UsageError before its first step.

        Raises MergeError for a journal line that no crash can make.
        """
        training = read_training(paths)
        if not training.curve.steps:
            raise UsageError(f"{paths.root} has not finished a step yet; next: hpcjobs status {paths.root}")
        config = read_config(paths.config).model_dump(mode="json")
        values = dict(_dotted({section: config[section] for section in SECTIONS}))
        return cls(paths, Plan.read(paths.plan), values, training, read_seen(paths, training.curve))

    @property
    def records(self) -> list[StepRecord]:
        """The steps that count, in their order."""
        return [self.training.curve.steps[step] for step in sorted(self.training.curve.steps)]

    @property
    def world_sizes(self) -> list[int]:
        """The numbers of ranks that it ran on, in their order; more than one where it was resumed on another shape."""
        return list(dict.fromkeys(record.world_size for record in self.records))

    @cached_property
    def values(self) -> dict[str, float | None]:
        """What it came to, by name; None for what it does not have."""
        said = self.training.file
        train = said.train or TrainFacts()
        whole = len(self.seen) == len(self.training.curve.steps)
        found = {name: said.metrics[name]["value"] if name in said.metrics else None for name in LOSSES}
        speed = {name: getattr(train, name) for name in ("tokens_per_s", "tokens_per_s_per_rank", "seconds")}
        read = sum(seen.samples for seen in self.seen.values()) if whole else None
        return found | {"tokens": said.counts.tokens} | speed | {
            "steps": said.counts.accepted, "samples": train.samples, "samples_read": read,
        }  # fmt: skip

    def step_of(self, name: str) -> int | None:
        """The step that a loss is of."""
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
    """Both losses on the `steps` that both have, in their order; NaN for one that is no number."""

    steps: npt.NDArray[np.int64]
    a: Floats
    b: Floats

    @property
    def first_difference(self) -> int | None:
        """The first step whose losses are not the same bit for bit."""
        return self._first((self.a != self.b) & ~(np.isnan(self.a) & np.isnan(self.b)))

    @property
    def first_beyond(self) -> int | None:
        """The first step whose losses are further apart than BEYOND, or of which one alone is no number."""
        return self._first(~(np.abs(self.b - self.a) <= BEYOND) & ~(np.isnan(self.a) & np.isnan(self.b)))

    @property
    def greatest(self) -> int | None:
        """The place in `steps` where the losses are furthest apart; None where no step has two."""
        apart = np.abs(self.b - self.a)
        return int(np.nanargmax(apart)) if np.isfinite(apart).any() else None

    def _first(self, found: npt.NDArray[np.bool_]) -> int | None:
        return int(self.steps[found.argmax()]) if found.any() else None


@dataclass(frozen=True)
class Batches:
    """Of how many common steps all ranks' samples are known on both sides, in how many they are the same, and the
    first step that has others."""

    compared: int
    same: int
    first_other: int | None


@dataclass(frozen=True)
class TrainComparison:
    """Two trainings, the config keys of which they have other values, and their curves side by side.

    `batches` is None where the data sets differ: a row's number then says nothing.
    """

    a: TrainSide
    b: TrainSide
    config: dict[str, tuple[object, object]]
    curves: Curves
    batches: Batches | None

    @property
    def metrics(self) -> list[str]:
        """The values that may be held to a gate: those that both have."""
        names = (*LOSSES, "tokens_per_s")
        return [name for name in names if self.a.values[name] is not None and self.b.values[name] is not None]

    def steps(self) -> Iterator[dict[str, object]]:
        """The common steps, one after the other, with what each side recorded."""
        for step in self.curves.steps.tolist():
            yield {"step": step} | {
                letter: _plain(side.training.curve.steps[step]) for letter, side in (("a", self.a), ("b", self.b))
            }


def _plain(record: StepRecord) -> dict[str, float | None]:
    names = ("loss", "eval_loss", "learning_rate", "grad_norm", "tokens", "seconds", "world_size")
    return {name: getattr(record, name) for name in names}


def compare_trainings(a: TrainSide, b: TrainSide) -> TrainComparison:
    """Hold B against A."""
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
    known = [step for step in steps if step in a.seen and step in b.seen]
    other = [
        step for step in known if (a.seen[step].samples, a.seen[step].mark) != (b.seen[step].samples, b.seen[step].mark)
    ]
    return Batches(len(known), len(known) - len(other), other[0] if other else None)
