"""Merge a train run: its steps, whether all are there, and its losses, in metrics.json."""

from __future__ import annotations

import dataclasses

from hpcjobs.merge.standing import better_standing
from hpcjobs.run_folder.disk import disk_errors
from hpcjobs.run_folder.files import write_json
from hpcjobs.run_folder.leftovers import remove_leftovers
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.training.outcome import TrainMerged, read_training


def merge_train(paths: RunPaths) -> TrainMerged:
    """Write metrics.json from rank 0's journals. Repeating it gives the same values, except for the time.

    If the one that stands has more steps, it is kept (`Merged.kept`).
    """
    remove_leftovers(paths.root)
    training = read_training(paths)
    if kept := better_standing(paths, Plan.read(paths.plan), training.merged.accepted):
        return dataclasses.replace(training.merged, kept=kept)
    with disk_errors(paths.metrics, next_command=f"hpcjobs merge {paths.root}"):
        write_json(paths.metrics, training.values)
    return training.merged
