"""SlurmTrial: a run on a real cluster, by the commands that a user types, through all that befalls it there."""

from __future__ import annotations

import contextlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.chaos_audit import Audit
from benchmarks.chaos_faults import Faults
from benchmarks.chaos_setting import LONG_WORK, SLURM_WORK, Setting
from benchmarks.chaos_shape import Shape
from hpcjobs.run_folder.heartbeat import read_heartbeats
from tests.runs import records_in, said
from tests.slurm.cluster import Cluster, temporary_cluster
from tests.slurm.site import Site

RUN = "chaos"
# In the order in which trials are given one; `time` is a time limit of a minute and more work than that, `evict` is
# preemption of jobs that Slurm must not requeue.
FAULTS = (
    "kill", "node", "preempt", "cancel", "time", "stop", "controller", "merge", "lose", "join", "guard", "evict",
    "silence", "dbd",
)  # fmt: skip
_OVER = ("complete", "incomplete", "failed", "ended", "cancelled")
_START_SECONDS, _CANCEL_SECONDS, _END_SECONDS = 120.0, 90.0, 420.0
# What is over may be a moment between two files, or two jobs (seconds).
_SETTLE_SECONDS = 4.0


@contextlib.contextmanager
def slurm_cluster() -> Iterator[Cluster]:
    """Three nodes of 4 CPUs and 2 fake GPUs, for as long as the block lasts."""
    with temporary_cluster(nodes=3, gpus=2, cpus=4) as cluster:
        yield cluster


class SlurmTrial:
    """One run of a setting; `faults` befall it in that order."""

    def __init__(self, site: Site, rng: random.Random, setting: Setting, faults: tuple[str, ...]) -> None:
        self._site, self._paths, self._rng, self._setting = site, site.paths(RUN), rng, setting
        self._names, self._faults, self._wrong = faults, Faults(site, RUN, rng), False

    def run(self, shape: Shape) -> tuple[Counter[str], list[str]]:
        """All of it: what was counted, and what was wrong."""
        self._submit(shape)
        self._disturb()
        self._finish()
        paths, setting, faults = self._paths, self._setting, self._faults
        audit = Audit(paths, faults.lives, setting.rows, setting.deterministic).run()
        more = {
            "lost": setting.rows - said(paths)["counts"]["accepted"], "wrong": self._wrong,
            "drains": sum(vitals.state == "drained" for vitals in read_heartbeats(paths.heartbeats)),
            "resumes": len(paths.rounds()) - 1,
        }  # fmt: skip
        differs = ["the results differ from the undisturbed run's"] * self._wrong
        return faults.counts + audit.counts() + Counter(more), audit.problems + differs

    def _submit(self, shape: Shape) -> None:
        template = self._setting.plan(self._site.folder / "template")
        where = ("--config", str(template.config), "--run-dir", str(self._paths.root), "--name", RUN)
        more = ["--time", "1"] * ("time" in self._names) + ["--set", "cluster.requeue=false"] * ("evict" in self._names)
        self._site.hpcjobs("submit", "eval", *where, "--executor", "slurm", "--yes", *shape.flags, *more)

    def _disturb(self) -> None:
        """From the first record on, one fault after another at random times, as long as there is work."""
        ours = {"cancel": self._cancel_and_resume, "join": self._join}
        self._faults.kills_merge = "merge" in self._names
        self._faults.until("a first record", lambda: self._recorded() > 0, _START_SECONDS)
        for name in [name for name in self._names if name not in ("time", "merge")]:
            self._faults.pause(self._rng.uniform(0.3, 3.0))
            if self._recorded() >= self._setting.rows:
                return
            ours[name]() if name in ours else self._faults.inject(name)

    def _cancel_and_resume(self) -> None:
        """`cancel`, then `resume` on another shape."""
        self._site.hpcjobs("cancel", RUN)
        self._faults.counts["cancels"] += 1
        if self._settled(time.monotonic() + _CANCEL_SECONDS) != "complete":
            self._site.hpcjobs("resume", RUN, *Shape.draw(self._rng, len(self._site.cluster.nodes)).flags)

    def _join(self) -> None:
        done = self._site.run(*_hpcjobs("join", RUN, "--nodes", "1"), code=None)
        self._faults.counts["joins"] += done.returncode == 0  # a run that is nearly over cannot be joined

    def _finish(self) -> None:
        """Until it is complete by its own word and by one more merge, resumed by hand wherever it stopped short."""
        deadline = time.monotonic() + _END_SECONDS
        while not (self._settled(deadline) == "complete" and self._merged_again()):
            self._site.run(*_hpcjobs("resume", RUN), code=None)
        self._faults.mend_all()
        self._faults.until("the end of all ranks", lambda: not self._faults.alive, _CANCEL_SECONDS)

    def _merged_again(self) -> bool:
        """Whether one more merge finds all there; what the run's own merge came to has to be right in any case."""
        self._note_results()
        if self._site.run(*_hpcjobs("merge", RUN), code=None).returncode:
            return False
        self._note_results()
        return True

    def _note_results(self) -> None:
        found = (self._paths.results.read_bytes(), said(self._paths))
        self._wrong = self._wrong or found != self._setting.expected()

    def _settled(self, deadline: float) -> str:
        """The state of a run that has been over, with nothing of it going, for some seconds."""
        since = time.monotonic()
        while True:
            status = self._site.status(RUN)
            if status["going"] or status["state"] not in _OVER:
                since = time.monotonic()
            elif status["state"] == "complete" or time.monotonic() - since > _SETTLE_SECONDS:
                return str(status["state"])
            assert time.monotonic() < deadline, f"not over in time: {json.dumps(status)}"
            self._faults.pause(3.0 if self._faults.kills_merge else 0.5)  # a merge takes seconds, and so does a look

    def _recorded(self) -> int:
        """Samples with a record, accepted or not."""
        return len({record.index for path in self._paths.journals() for record in records_in(path)})


def run_slurm_trial(
    cluster: Cluster, folder: Path, rng: random.Random, number: int
) -> tuple[Counter[str], list[str], str]:
    """One trial in `folder`: what was counted, what was wrong, and what it was. Its number names one fault of it."""
    faults = (FAULTS[number % len(FAULTS)], *rng.choices([name for name in FAULTS if name != "time"], k=3))
    shape = Shape.draw(rng, len(cluster.nodes))
    setting = Setting.draw_slurm(rng, shape.ranks, LONG_WORK if "time" in faults else SLURM_WORK)
    try:
        counts, problems = SlurmTrial(Site(cluster, folder), rng, setting, faults).run(shape)
    finally:
        cluster.recover()
    return counts, problems, f"{' '.join(shape.flags)} {setting} {' '.join(faults)}"


def _hpcjobs(*words: str) -> tuple[str, ...]:
    return sys.executable, "-m", "hpcjobs", *words
