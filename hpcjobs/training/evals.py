"""The evals of what a train run has made: which models there are, and what their evals have come to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.paths import RunPaths, steps_in


@dataclass(frozen=True)
class ModelEval:
    """The eval of one model. `step` is None for the last model, model/.

    state: waiting (not started yet), going, complete or incomplete. `metrics`: name -> value, of a merged eval.
    """

    step: int | None
    model: str
    run: str
    state: str
    metrics: dict[str, float | None]


def model_steps(paths: RunPaths) -> list[int]:
    """The steps on the way that have a whole model, in order."""
    return steps_in(paths.models)


def models_of(paths: RunPaths) -> Iterator[tuple[int | None, Path]]:
    """(step, folder) of every whole model, the last one, None, at the end."""
    for step in model_steps(paths):
        yield step, paths.step_model(step)
    if paths.model.exists():
        yield None, paths.model


def evals_of(paths: RunPaths) -> list[ModelEval]:
    """The evals of a train run by its models; none where it has no `train.then_eval`."""
    return [_eval_of(paths, step, model) for step, model in models_of(paths)] if paths.then_eval.exists() else []


def _eval_of(paths: RunPaths, step: int | None, model: Path) -> ModelEval:
    run = RunPaths(paths.eval_of(step))
    state, metrics = "going" if run.submission.exists() else "waiting", dict[str, float | None]()
    try:
        values: dict[str, Any] = read_json(run.metrics)
        metrics = {name: metric["value"] for name, metric in values["metrics"].items()}
        state = "complete" if values["complete"] else "incomplete"
    except (OSError, ValueError, KeyError, TypeError):
        pass  # it has not been merged yet, or never will
    return ModelEval(step, str(model), str(run.root), state, metrics)
