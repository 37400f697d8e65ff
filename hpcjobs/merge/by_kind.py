"""The merge of a run, by kind of job; kinds without one have no entry."""

from __future__ import annotations

from collections.abc import Callable

from hpcjobs.run_folder.merged import Merged
from hpcjobs.run_folder.paths import RunPaths


def _eval(paths: RunPaths) -> Merged:
    from hpcjobs.merge.eval import merge

    return merge(paths)


def _train(paths: RunPaths) -> Merged:
    from hpcjobs.merge.train import merge_train

    return merge_train(paths)


# Writes the results and metrics.json, and says what is missing. May be run again at any time.
MERGES: dict[str, Callable[[RunPaths], Merged]] = {
    "eval": _eval, "generate": _eval, "sweep": _eval, "map": _eval, "train": _train,
}  # fmt: skip
