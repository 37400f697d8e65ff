"""Trainings that a user launches: by the local executor, whose supervisor is met by the faults too, and on Slurm."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

from benchmarks.chaos_faults import Faults
from benchmarks.training_setting import TrainSetting, differences
from hpcjobs.commands.status import Status, read_status
from hpcjobs.launch.jobs import known_launches, local_processes
from hpcjobs.launch.slurm import clean_environment
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity
from tests.slurm.cluster import temporary_cluster
from tests.slurm.site import Site

RUN = "training"
Told = tuple[Counter[str], list[str], str]
# Of a local launch: one, some or all of its processes are killed, one is stopped for a while; a command is used.
LOCAL_FAULTS = ("one", "one", "some", "every", "supervisor", "supervisor", "stop", "cancel", "submit")
SLURM_FAULTS = ("kill", "guard", "stop", "node", "preempt", "controller", "cancel")
# A start that is not over by then has hung; on Slurm it may wait for a node to come back (seconds).
_LOCAL_SECONDS, _SLURM_SECONDS, _RESUMES = 120.0, 400.0, 8
_LAUNCH_SECONDS, _STOPPED = 14.0, (0.5, 8.0)


class Launched:
    """A run that is driven by commands; `env` is that of its user."""

    def __init__(self, folder: Path, env: dict[str, str], setting: TrainSetting, how: tuple[str, ...]) -> None:
        self.paths, self.counts, self.problems = RunPaths(folder / "runs" / RUN), Counter[str](), list[str]()
        self.env, self._folder, self._setting = env | {"HPCJOBS_RUNS": str(folder / "runs")}, folder, setting
        template = setting.plan(folder / "template")
        where = ("--config", str(template.config), "--run-dir", str(self.paths.root), "--name", RUN)
        self._submit = ("submit", "train", *where, "--yes", *how)

    def submit(self, within: float | None = None) -> None:
        """Submit; `within`: the command is killed after so many seconds."""
        process = self._begin(*self._submit)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=within)
        if process.poll() is None:
            process.kill()
            process.communicate()

    def hpcjobs(self, *words: str) -> tuple[int, str]:
        """A command as the user types it: exit code and output."""
        process = self._begin(*words)
        out, _ = process.communicate(timeout=240)
        return process.returncode, out

    def look(self) -> Status:
        """What `hpcjobs status` reads."""
        with mock.patch.dict(os.environ, self.env, clear=True):
            return read_status(self.paths)

    def finish(self, seconds: float, pause: Callable[[float], None] = time.sleep) -> None:
        """Until it is complete, resumed by hand wherever it stopped short."""
        for _ in range(_RESUMES):
            if not self.paths.root.exists():
                self.submit()
            end = time.monotonic() + seconds
            while (status := self.look()).going or not status.state.over:
                if time.monotonic() > end:
                    self.counts["held"] += 1
                    self.problems.append(f"{status.state}, and still going after {seconds:.0f} s: {status.notes}")
                    self.hpcjobs("cancel", RUN)
                    return
                pause(0.3)
            if status.state == "complete":
                self.problems += differences(self.paths, self._setting, same_shape=True)
                return
            code, said = self.hpcjobs("resume", RUN)
            self.counts["resumes"] += 1
            if code not in (0, 3) and "still going" not in said:
                self.problems.append(f"resume ended with {code}: {said}")
                return
        self.problems.append(f"not complete after {_RESUMES} resumes: {self.look()}")

    def _begin(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "hpcjobs", *words], env=self.env, cwd=self._folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip


def run_local_trial(folder: Path, rng: random.Random) -> Told:
    """One to three faults at random times after a launch; each is followed by what a user would do."""
    setting = TrainSetting("plain", 2, steps=40)
    env = clean_environment() | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.getcwd()}
    run = Launched(folder, env, setting, ("--executor", "local"))
    faults = tuple(rng.choice(LOCAL_FAULTS) for _ in range(rng.randint(1, 3)))
    run.submit(rng.uniform(0.3, 5.0) if "submit" in faults else None)
    for name in faults:
        run.counts[name] += 1
        if name == "submit" or not run.paths.root.exists():
            continue
        if not run.look().going:
            run.hpcjobs("resume", RUN)
        time.sleep(rng.uniform(0.0, _LAUNCH_SECONDS))
        _meet(run, name, rng)
    try:
        run.finish(_LOCAL_SECONDS)
    finally:
        for process in _processes(run):
            process.send(signal.SIGKILL)
    return run.counts, run.problems, f"local {' '.join(faults)}"


def _processes(run: Launched) -> list[Identity]:
    launches = known_launches(run.paths) if run.paths.root.exists() else []
    return [process for launch in launches for process in local_processes(launch)]


def _meet(run: Launched, name: str, rng: random.Random) -> None:
    if name == "cancel":
        run.hpcjobs("cancel", RUN)
        return
    found = sorted(_processes(run), key=lambda one: one.pid)
    if not found:
        return
    if name == "supervisor":
        victims = found[:1]
    else:
        victims = rng.sample(found, {"some": rng.randint(1, len(found)), "every": len(found)}.get(name, 1))
    for victim in victims:
        victim.send(signal.SIGSTOP if name == "stop" else signal.SIGKILL)
    if name == "stop":
        time.sleep(rng.uniform(*_STOPPED))
        victims[0].send(signal.SIGCONT)


@contextlib.contextmanager
def slurm_trials(seed: int) -> Iterator[Callable[[Path, int], Told]]:
    """What runs trial `number` in a folder, on a cluster that lives as long as the block."""
    with temporary_cluster(nodes=3, gpus=2, cpus=4) as cluster:

        def attempt(folder: Path, number: int) -> Told:
            try:
                return _run_slurm_trial(Site(cluster, folder), random.Random(f"slurm-{seed}-{number}"), number)
            finally:
                cluster.recover()

        yield attempt


def _run_slurm_trial(site: Site, rng: random.Random, number: int) -> Told:
    setting = replace(TrainSetting("plain", 2, steps=120), heartbeat=0.5, lease_timeout=6.0)
    how = ("--executor", "slurm", "--nodes", "2", "--ntasks-per-node", "1", "--gpus", "0", "--cpus-per-task", "1")
    run = Launched(site.folder, site.env, setting, (*how, "--set", "cluster.env={OMP_NUM_THREADS: '1'}"))
    faults, meets = (SLURM_FAULTS[number % len(SLURM_FAULTS)], *rng.choices(SLURM_FAULTS, k=2)), Faults(site, RUN, rng)
    run.submit()
    for name in faults:
        meets.until("a step, or the end", lambda: run.look().done > 0 or run.look().state.over, 180.0)
        meets.pause(rng.uniform(0.0, 6.0))
        run.counts[name] += 1
        if name == "cancel":
            run.hpcjobs("cancel", RUN)
            meets.until("the end", lambda: not run.look().going, 120.0)
            run.hpcjobs("resume", RUN)
        else:
            meets.inject(name)
    run.finish(_SLURM_SECONDS, meets.pause)
    meets.mend_all()
    return run.counts, run.problems, f"slurm {' '.join(faults)}"
