"""Merge a train run: its steps, whether all are there, and its losses, in metrics.json."""

from __future__ import annotations

from hpcjobs.run_folder.disk import disk_errors
from hpcjobs.run_folder.files import write_json
from hpcjobs.run_folder.leftovers import remove_leftovers
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.training.outcome import TrainMerged, read_training


def merge_train(paths: RunPaths) -> TrainMerged:
    """Write metrics.json from rank 0's journals. Repeating it gives the same values, except for the time."""
    remove_leftovers(paths.root)
    training = read_training(paths)
    with disk_errors(paths.metrics, next_command=f"hpcjobs merge {paths.root}"):
        write_json(paths.metrics, training.values)
    return training.merged
