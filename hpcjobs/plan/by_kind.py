"""The plan of a run, by kind of job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hpcjobs.config import Config
from hpcjobs.plan.draft import Draft
from hpcjobs.plan.named_engine import check_engine
from hpcjobs.plan.weights import check_trained, check_weights

# (config, the words behind `--`, the run's folder or None for a made-up name) -> what will be written, all checked.
Planner = Callable[[Config, Sequence[str], Path | None], Draft]


def _eval(config: Config, argv: Sequence[str], folder: Path | None) -> Draft:
    from hpcjobs.plan.eval import make_plan

    draft = make_plan("eval", config, folder)
    check_engine(draft.config)
    check_weights(draft.config)
    return draft


def _generate(config: Config, argv: Sequence[str], folder: Path | None) -> Draft:
    from hpcjobs.plan.eval import make_plan

    draft = make_plan("generate", config, folder)
    check_engine(draft.config)
    check_weights(draft.config)
    return draft


def _train(config: Config, argv: Sequence[str], folder: Path | None) -> Draft:
    from hpcjobs.plan.train import make_train_plan

    draft = make_train_plan(config, folder)
    check_trained(draft.config)
    if config.train.init == "pretrained":
        check_weights(draft.config)
    return draft


def _script(config: Config, argv: Sequence[str], folder: Path | None) -> Draft:
    from hpcjobs.plan.script import make_script_plan

    return make_script_plan(config, list(argv), folder)


PLANNERS: dict[str, Planner] = {"eval": _eval, "generate": _generate, "train": _train, "script": _script}
