"""The evals of a train run's models: which models exist, and the state of their evals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hpcjobs.run_folder.metrics_file import MetricsFile
from hpcjobs.run_folder.paths import RunPaths, steps_in


class EvalState(StrEnum):
    """The state of a model's eval; the values are the words in text and JSON output."""

    WAITING = "waiting"  # it was not started yet
    GOING = "going"  # it was started and not merged yet
    COMPLETE = "complete"  # merged, with a result for every sample
    INCOMPLETE = "incomplete"  # merged, and results or scores are missing
    FAILED = "failed"  # it could not be started; or merged, and no success: too many samples failed


@dataclass(frozen=True, kw_only=True)
class ModelEval:
    """The eval of one model. `step` is None for the final model, model/. `metrics` are the values of a merged eval, by
    name; `reason` is why it could not be started.
    """

    step: int | None
    model: str
    run: str
    state: EvalState
    metrics: dict[str, float | None]
    reason: str | None = None


def model_steps(paths: RunPaths) -> list[int]:
    """The steps that have an intermediate model, in order."""
    return steps_in(paths.models)


def models_of(paths: RunPaths) -> Iterator[tuple[int | None, Path]]:
    """(step, folder) of every model; the final one (None) last."""
    for step in model_steps(paths):
        yield step, paths.step_model(step)
    if paths.model.exists():
        yield None, paths.model


def evals_of(paths: RunPaths) -> list[ModelEval]:
    """The evals of a train run's models; none without `train.then_eval`."""
    return [_eval_of(paths, step, model) for step, model in models_of(paths)] if paths.then_eval.exists() else []


def _eval_of(paths: RunPaths, step: int | None, model: Path) -> ModelEval:
    run = RunPaths(paths.eval_of(step))
    state = EvalState.GOING if run.submission.exists() else EvalState.WAITING
    metrics: dict[str, float | None] = {}
    reason = _failure(paths, step) if state is EvalState.WAITING else None
    if reason:
        state = EvalState.FAILED
    try:
        merged = MetricsFile.read(run.metrics)
        metrics = {name: metric["value"] for name, metric in merged.metrics.items()}
        state = EvalState(str(merged.verdict.state))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # it has not been merged yet, or never will
    return ModelEval(step=step, model=str(model), run=str(run.root), state=state, metrics=metrics, reason=reason)


def _failure(paths: RunPaths, step: int | None) -> str | None:
    try:
        return paths.eval_failure(step).read_text(encoding="utf-8") or None
    except OSError:
        return None
