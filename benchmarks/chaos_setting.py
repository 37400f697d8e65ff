"""Setting: what a trial runs, and what an undisturbed run of it comes to."""

from __future__ import annotations

import functools
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.plan.eval import make_plan
from hpcjobs.run_folder.paths import RunPaths
from tests.runs import MEMORY, outcome, plan_run, run_ranks, undisturbed

TINY_TASK: dict[str, Any] = {
    "messages": [{"role": "user", "content": "{{ question }}"}],
    "target": "{{ answer }}",
    "generation": {"max_new_tokens": 96},
    "metrics": ["exact_match", "contains"],
}
# Ranks that load a model meet once; a killed one must not cost the others more than this (seconds).
_MEETING = 20.0
# Seconds of work of a Slurm trial, and of one whose job is given a minute.
SLURM_WORK, LONG_WORK = (10.0, 25.0), (75.0, 85.0)


@dataclass(frozen=True)
class Setting:
    """What a trial runs; times in seconds. `delay` is the dummy engine's, which is not used where `tiny` is."""

    rows: int
    chunk_size: int
    delay: float
    static: bool = False
    deterministic: bool = False
    tiny: bool = False
    heartbeat: float = 0.1
    lease_timeout: float = 0.5

    @classmethod
    def draw(cls, rng: random.Random, work: float) -> Setting:
        """At most about `work` seconds of one rank: long enough for faults to meet it. Many rows: chunks taper."""
        rows = rng.choice((rng.randint(0, 200), rng.randint(200, 500), rng.randint(200, 500)))
        delay = min(0.3, rng.uniform(work / 12, work) / max(rows, 1))
        return cls(rows, rng.choice((1, 4, 8, 16)), delay, rng.random() < 0.2, rng.random() < 0.3)

    @classmethod
    def draw_tiny(cls, rng: random.Random) -> Setting:
        """The tiny model; deterministic, or a text might differ by the batch that it was made in."""
        return cls(rng.randint(10, 20), rng.choice((1, 2, 4)), 0.0, deterministic=True, tiny=True)

    @classmethod
    def draw_slurm(cls, rng: random.Random, ranks: int, work: tuple[float, float]) -> Setting:
        """Work of that many seconds (least, most) for `ranks` ranks."""
        rows = rng.randint(100, 500)
        delay = rng.uniform(*work) * ranks / rows
        rules = (rng.random() < 0.15, rng.random() < 0.3)
        return cls(rows, rng.choice((1, 4, 8, 16)), delay, *rules, heartbeat=0.5, lease_timeout=4.0)

    def plan(self, folder: Path) -> RunPaths:
        """A planned run in `folder`."""
        rules = {
            "heartbeat": self.heartbeat, "lease_timeout": self.lease_timeout, "chunk_size": self.chunk_size,
            "sharding": "static" if self.static else "dynamic", "deterministic": self.deterministic,
        }  # fmt: skip
        if self.tiny:
            return self._plan_tiny(folder, rules | {"rendezvous_timeout": _MEETING})
        return plan_run(folder, self.rows, model={"engine": "dummy", "dummy_delay": self.delay}, run=rules)

    def _plan_tiny(self, folder: Path, rules: dict[str, Any]) -> RunPaths:
        values = {
            "model": {"name": "tiny", "engine": "generate", "batch_size": 4},
            "data": {"name": "canned_50_quick", "max_samples": self.rows},
            "task": TINY_TASK, "run": rules, "cluster": {"executor": "local"},
        }  # fmt: skip
        draft = make_plan("eval", validate(Layer(values)), folder)
        draft.write()
        return draft.paths

    def expected(self) -> tuple[bytes, dict[str, Any]]:
        """Bytes of results.parquet, and metrics and counts, of ranks that nothing happened to."""
        return _undisturbed_tiny(self) if self.tiny else undisturbed(self.rows)


@functools.cache
def _undisturbed_tiny(setting: Setting) -> tuple[bytes, dict[str, Any]]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        paths = setting.plan(Path(folder, "run"))
        run_ranks(paths, 2)
        merged, content, values = outcome(paths)
    assert merged.complete
    return content, values
