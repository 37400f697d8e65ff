"""The plan of a run, by kind of job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hpcjobs.config import Config
from hpcjobs.errors import UsageError
from hpcjobs.plan.draft import Draft

# (config, the words behind `--`, the run's folder or None for a made-up name) -> what will be written, all checked.
Planner = Callable[[Config, Sequence[str], Path | None], Draft]


def _eval(config: Config, argv: Sequence[str], folder: Path | None) -> Draft:
    from hpcjobs.plan.eval import make_plan

    return make_plan("eval", config, folder)


def _generate(config: Config, argv: Sequence[str], folder: Path | None) -> Draft:
    from hpcjobs.plan.eval import make_plan

    return make_plan("generate", config, folder)


def _train(config: Config, argv: Sequence[str], folder: Path | None) -> Draft:
    from hpcjobs.plan.train import make_train_plan

    return make_train_plan(config, folder)


def _script(config: Config, argv: Sequence[str], folder: Path | None) -> Draft:
    from hpcjobs.plan.script import make_script_plan

    return make_script_plan(config, list(argv), folder)


def _sweep(config: Config, argv: Sequence[str], folder: Path | None) -> Draft:
    if config.sweep is None:
        raise UsageError("a sweep needs points: --sweep points.jsonl, or --set sweep.NAME=[1, 2, 3]")
    return _script(config, argv, folder)


def _map(config: Config, argv: Sequence[str], folder: Path | None) -> Draft:
    raise UsageError("a map of functions is submitted from Python: hpcjobs.Executor(folder).map_array(f, values)")


PLANNERS: dict[str, Planner] = {
    "eval": _eval, "generate": _generate, "train": _train, "script": _script, "sweep": _sweep, "map": _map,
}  # fmt: skip
