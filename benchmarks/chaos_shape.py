"""Shape: what a Slurm trial asks of the cluster."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """What is asked of Slurm, as flags, and the number of ranks that they make."""

    flags: tuple[str, ...]
    ranks: int

    @classmethod
    def draw(cls, rng: random.Random, nodes: int) -> Shape:
        """On at most so many nodes: CPU tasks, GPUs or an array."""
        count, each, kind = rng.randint(1, nodes), rng.randint(1, 2), rng.choice(("tasks", "tasks", "gpus", "array"))
        if kind == "gpus":
            return cls(("--nodes", str(count), "--gpus", str(count * each)), count * each)
        where = ("--array", str(count + 1)) if kind == "array" else ("--nodes", str(count))
        workers = count + (kind == "array")
        return cls((*where, "--ntasks-per-node", str(each), "--gpus", "0"), workers * each)
