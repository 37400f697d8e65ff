"""Which samples each step trained on, over all ranks, as one hash per step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.training.steps import Curve, read_steps


@dataclass
class StepSamples:
    """The number of samples of a step, and a `mark` that is equal for steps with the same samples in any order.

    The mark is the sum of a hash of each sample's row number, modulo 2**64, so it does not depend on how ranks share a
    batch.
    """

    samples: int = 0
    mark: int = 0
    ranks: int = 0

    def add(self, samples: Sequence[int]) -> None:
        """Add the samples of one more rank."""
        self.samples += len(samples)
        self.mark = (self.mark + int(_mixed(samples).sum(dtype=np.uint64))) % 2**64
        self.ranks += 1


def read_step_samples(paths: RunPaths, curve: Curve) -> dict[int, StepSamples]:
    """The samples of the steps of `curve` for which every rank's journal has a record; of repeated steps the last.

    Raises a MergeError for a broken journal line.
    """
    found: dict[int, StepSamples] = {}
    for path in paths.journals():
        for record in read_steps(path):
            counts = curve.steps.get(record.step)
            if counts is not None and counts.attempt == record.attempt:
                found.setdefault(record.step, StepSamples()).add(record.samples)
    return {step: one for step, one in found.items() if one.ranks == curve.steps[step].world_size}


def _mixed(samples: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """A hash of each number: SplitMix64 (Steele, Lea, Flood, Fast splittable pseudorandom number generators, 2014)."""
    z = np.array(samples, np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
