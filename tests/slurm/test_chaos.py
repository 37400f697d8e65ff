"""One trial of `benchmarks/chaos.py --slurm`, with faults that are no dice."""

from __future__ import annotations

import random

from benchmarks.chaos_setting import Setting
from benchmarks.chaos_shape import Shape
from benchmarks.chaos_slurm import SlurmTrial
from tests.slurm.site import Site


def test_what_befalls_a_run_cannot_be_seen_in_its_results(site: Site) -> None:
    setting = Setting(rows=160, chunk_size=4, delay=0.4, heartbeat=0.5, lease_timeout=4.0)
    faults = ("stop", "join", "guard")
    trial = SlurmTrial(site, random.Random(3), setting, faults)
    counts, problems = trial.run(Shape(("--nodes", "2", "--ntasks-per-node", "2", "--gpus", "0"), 4))
    assert problems == []
    assert not {name: counts[name] for name in ("lost", "duplicated", "wrong", "over bound") if counts[name]}
    assert min(counts[name] for name in ("stops", "joins", "kills")) > 0, "nothing was injected"
