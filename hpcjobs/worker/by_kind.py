"""What a rank runs, by kind of job."""

from __future__ import annotations

from collections.abc import Callable

from hpcjobs.distributed.work import Work


def _eval(work: Work) -> None:
    from hpcjobs.worker.eval import run_eval

    run_eval(work)


def _train(work: Work) -> None:
    from hpcjobs.worker.train import run_train

    run_train(work)


def _script(work: Work) -> None:
    from hpcjobs.worker.script import run_script

    run_script(work)


def _sweep(work: Work) -> None:
    from hpcjobs.worker.sweep import run_sweep

    run_sweep(work)


def _map(work: Work) -> None:
    from hpcjobs.worker.map import run_map

    run_map(work)


# Returns when there is nothing left for this rank to do; an error ends the rank.
RANKS: dict[str, Callable[[Work], None]] = {
    "eval": _eval, "generate": _eval, "train": _train, "script": _script, "sweep": _sweep, "map": _map,
}  # fmt: skip
