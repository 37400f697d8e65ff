"""metrics.json as it is read, whoever wrote it; files of earlier versions lack some of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NotRequired, Self, TypedDict

from hpcjobs.run_folder.files import read_json


class OptionSummary(TypedDict):
    """A metric over the samples whose right option is the same one."""

    value: float
    n: int


class Summary(TypedDict):
    """One metric: value, standard error and 95% intervals (None where there is nothing to say) over `n` samples.

    `by_option`: the same by right option, of multiple choice. `step`: the step that a training's loss is of.
    """

    value: float | None
    stderr: float | None
    ci95: list[float] | None
    n: int
    bootstrap_ci95: NotRequired[list[float] | None]
    by_option: NotRequired[dict[str, OptionSummary]]
    step: NotRequired[int]


# Summaries by column, value and metric.
Groups = dict[str, dict[str, dict[str, Summary]]]


@dataclass(frozen=True)
class _Part:
    """A section of the file."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The section of those values that it has fields for; a TypeError where one is missing."""
        return cls(**{one.name: values[one.name] for one in fields(cls) if one.name in values})


@dataclass(frozen=True, kw_only=True)
class Counts(_Part):
    """Rows (of a training: steps) in all, with and without a result; `errors` are results that are errors."""

    rows: int
    accepted: int
    missing: int
    errors: int
    duplicates: int = 0
    foreign: int = 0
    finish_reasons: Mapping[str, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tokens: int = 0


class CheckpointFacts(TypedDict):
    """A checkpoint of a training; `error` is why its `bytes` are not known."""

    step: int
    bytes: int | None
    error: NotRequired[str]


@dataclass(frozen=True, kw_only=True)
class TrainFacts(_Part):
    """What only a training has: speed, checkpoints, the model."""

    tokens_per_s: float = 0.0
    tokens_per_s_per_rank: float = 0.0
    seconds: float = 0.0
    steps_run_again: int = 0
    samples: int | None = None
    checkpoints: list[CheckpointFacts] = field(default_factory=list)
    model: str | None = None
    adapter: str | None = None


@dataclass(frozen=True, kw_only=True)
class Provenance(_Part):
    """Where the values come from; `model` and `data` are as plan.json has them, times in Unix seconds."""

    merged_at: float
    model: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    generation: Mapping[str, object] = field(default_factory=dict)
    merged_with: str | None = None
    rescored_at: float | None = None
    rescored_with: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MetricsFile:
    """What a merge said of a run; `values` is all of the file, for whoever passes it on."""

    complete: bool
    counts: Counts
    metrics: Mapping[str, Summary]
    provenance: Provenance
    groups: Groups
    warnings: list[str]
    train: TrainFacts | None
    values: dict[str, object]

    @classmethod
    def read(cls, path: Path) -> MetricsFile:
        """The file at `path`. An OSError, ValueError, KeyError or TypeError where it cannot be read."""
        return cls.of(read_json(path))

    @classmethod
    def of(cls, values: dict[str, Any]) -> MetricsFile:
        """The same of the values in the file."""
        return cls(
            complete=values["complete"],
            counts=Counts.of(values["counts"]),
            metrics=values["metrics"],
            provenance=Provenance.of(values["provenance"]),
            groups=values.get("groups", {}),
            warnings=values.get("warnings", []),
            train=TrainFacts.of(values["train"]) if "train" in values else None,
            values=values,
        )
