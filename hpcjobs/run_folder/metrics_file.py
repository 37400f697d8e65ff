"""metrics.json, typed. Files of earlier versions lack some fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NotRequired, Self, TypedDict, cast

from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.verdict import MAX_ERRORS, Verdict, judge_answers, judge_steps


class OptionSummary(TypedDict):
    """A metric over the samples with one correct option."""

    value: float
    n: int


class Summary(TypedDict):
    """A metric: value, standard error and 95% intervals (None if undefined) over `n` samples.

    `by_option`: the same by correct option, for choice. `step`: the step of a training's loss. `lower_is_better` is set
    if it is so. `unscored`: samples with an answer whose score is no finite number, if there are any; not in `n`.
    `revision`: the number of the metric's definition, if it is not the first. `clusters`: how many clusters of
    `task.cluster_by` the samples are of.
    """

    value: float | None
    stderr: float | None
    ci95: list[float] | None
    n: int
    bootstrap_ci95: NotRequired[list[float] | None]
    by_option: NotRequired[dict[str, OptionSummary]]
    step: NotRequired[int]
    lower_is_better: NotRequired[bool]
    unscored: NotRequired[int]
    clusters: NotRequired[int]
    revision: NotRequired[int]


# Summaries by column, value and metric.
Groups = dict[str, dict[str, dict[str, Summary]]]


@dataclass(frozen=True)
class _Part:
    """A section of the file."""

    @classmethod
    def of(cls, values: Mapping[str, object]) -> Self:
        """The section with those values that it has fields for. Raises a TypeError if one is missing."""
        return cls(**{one.name: values[one.name] for one in fields(cls) if one.name in values})


@dataclass(frozen=True, kw_only=True)
class Counts(_Part):
    """Rows (steps of a training), with and without a result.

    `errors` are results without a completion, `metric_errors` those with one that a metric failed to score.
    """

    rows: int
    accepted: int
    missing: int
    errors: int
    metric_errors: int = 0
    duplicates: int = 0
    foreign: int = 0
    finish_reasons: Mapping[str, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tokens: int = 0


class CheckpointFacts(TypedDict):
    """A checkpoint of a training; `error` is why its `bytes` are unknown."""

    step: int
    bytes: int | None
    error: NotRequired[str]


@dataclass(frozen=True, kw_only=True)
class TrainFacts(_Part):
    """What only train runs have: speed, checkpoints, the model."""

    tokens_per_s: float = 0.0
    tokens_per_s_per_rank: float = 0.0
    seconds: float = 0.0
    steps_run_again: int = 0
    samples: int | None = None
    checkpoints: list[CheckpointFacts] = field(default_factory=list)
    model: str | None = None
    model_step: int | None = None
    adapter: str | None = None


@dataclass(frozen=True, kw_only=True)
class Provenance(_Part):
    """Where the values come from; `model` and `data` are as in plan.json, times in Unix seconds.

    `scoring` is the version of the rules that made the scores (metrics/scoring_version.py).
    """

    merged_at: float
    model: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    generation: Mapping[str, object] = field(default_factory=dict)
    merged_with: str | None = None
    scoring: int = 1
    rescored_at: float | None = None
    rescored_with: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MetricsFile:
    """The content of metrics.json; `values` is the whole file."""

    complete: bool
    counts: Counts
    metrics: Mapping[str, Summary]
    provenance: Provenance
    groups: Groups
    warnings: list[str]
    train: TrainFacts | None
    values: dict[str, object]

    @property
    def verdict(self) -> Verdict:
        """Whether the run is a success."""
        if self.train is not None:
            return judge_steps(self.complete, self.counts)
        limit = self.values.get("max_errors")
        return judge_answers(self.counts, scored(self.metrics), MAX_ERRORS if limit is None else cast("float", limit))

    @classmethod
    def read(cls, path: Path) -> MetricsFile:
        """Read the file at `path`. Raises an OSError, ValueError, KeyError or TypeError."""
        try:
            return cls.of(read_json(path))
        except FileNotFoundError:  # its folder was replaced at that moment
            return cls.of(read_json(path))

    @classmethod
    def of(cls, values: dict[str, Any]) -> MetricsFile:
        """The same, from the values in the file."""
        return cls(
            complete=values["complete"],
            counts=Counts.of(values["counts"]),
            metrics={name: _checked(name, one) for name, one in values["metrics"].items()},
            provenance=Provenance.of(values["provenance"]),
            groups=values.get("groups", {}),
            warnings=values.get("warnings", []),
            train=TrainFacts.of(values["train"]) if "train" in values else None,
            values=values,
        )


def _checked(name: str, one: Summary) -> Summary:
    """The summary. Raises a ValueError, KeyError or TypeError if it is none."""
    for key in ("value", "stderr"):
        if one[key] is not None and not isinstance(one[key], int | float):
            raise ValueError(f"the {key} of {name!r} is no number")
    if not isinstance(one["n"], int):
        raise ValueError(f"n of {name!r} is no number")
    return one


def scored(metrics: Mapping[str, Summary]) -> dict[str, int]:
    """How many samples have a score, by metric."""
    return {name: summary["n"] for name, summary in metrics.items()}


def with_verdict(values: dict[str, object]) -> dict[str, Any]:
    """The values of metrics.json with the run's `state`, and in `why` what is wrong, for programs that read it."""
    verdict = MetricsFile.of(values).verdict
    return values | {"state": str(verdict.state), "why": verdict.why}
