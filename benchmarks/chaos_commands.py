"""CommandTrial: a run driven by commands at once and cut short, on a queue whose jobs this process runs."""

from __future__ import annotations

import contextlib
import os
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks.chaos_setting import Setting
from hpcjobs.launch.jobs import known_launches
from hpcjobs.launch.slurm import clean_environment
from hpcjobs.run_folder.metrics_file import MetricsFile
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.run_state import RunState
from hpcjobs.run_folder.submission import read_launches
from tests.queue_slurm import QueueSlurm
from tests.runs import said, start_process

RUN = "a"
COMMANDS = ("join", "join", "resume", "resume", "cancel", "merge", "score", "report", "status")
# A command or job that takes longer than this has hung; how long one may run before it is killed (seconds).
_PATIENCE, _CUT = 120.0, (0.05, 1.2)
_CUT_SHORT, _RESUMES = 0.35, 10


class SmallCluster:
    """Runs the jobs of a queue: ranks at once, a merge when the jobs that it waits for are over."""

    def __init__(self, slurm: QueueSlurm, env: Mapping[str, str]) -> None:
        self._slurm, self._env = slurm, dict(env)
        self._running: dict[str, list[BaseProcess]] = {}

    def look(self) -> None:
        """Start what may start, end what was cancelled, and record what has ended."""
        states = self._slurm.states()
        over = {job for job, state in states.items() if state not in ("PENDING", "RUNNING")}
        for job, state in states.items():
            processes = self._running.get(job, [])
            if state == "CANCELLED" and processes:
                self._end(self._running.pop(job))
            elif state == "PENDING" and (script := self._script(job)) and _waits_for(script) <= over:
                if self._slurm.become("RUNNING", job):
                    self._running[job] = self._start(job, script)
            elif state == "RUNNING" and all(process.exitcode is not None for process in processes):
                bad = any(process.exitcode for process in self._running.pop(job, []))
                self._slurm.become("FAILED" if bad else "COMPLETED", job)

    def run(self, seconds: float) -> None:
        """Look for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.look()
            time.sleep(0.02)

    def drain(self) -> bool:
        """Look until nothing is queued or runs; False if that takes too long."""
        end = time.monotonic() + _PATIENCE
        while self._slurm.live() and time.monotonic() < end:
            self.run(0.05)
        return not self._slurm.live()

    def end(self) -> None:
        for processes in self._running.values():
            self._end(processes)

    def _script(self, job: str) -> str:
        """The script of a job: under the name that sbatch was given, or that it has got since."""
        given = Path((self._slurm.jobs / job).read_text().partition("|")[2].strip())
        for path in (given, given.parent / f"{job}_submission.sh"):
            with contextlib.suppress(OSError):
                return path.read_text()
        return ""

    def _start(self, job: str, script: str) -> list[BaseProcess]:
        pickle = re.search(r"^cp (\S+) ", script, re.MULTILINE)
        tasks = re.search(r"--ntasks-per-node=(\d+)", script)
        assert pickle, script
        assert tasks, script
        common = {"SLURM_JOB_ID": job, "SLURM_NODEID": "0", "SLURM_STEP_ID": "0"}
        count = tasks[1] if "\nsrun " in script else ""
        envs = [
            common | ({"SLURM_PROCID": str(n), "SLURM_LOCALID": str(n), "SLURM_NTASKS": count} if count else {})
            for n in range(int(count or 1))
        ]
        return [start_process(job_main, pickle[1], self._env | env) for env in envs]

    def _end(self, processes: list[BaseProcess]) -> None:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(5.0)
            process.kill()


def job_main(pickle: str, env: Mapping[str, str]) -> None:
    """What a task of a job does: what submitit was asked to call."""
    from submitit.core.utils import DelayedSubmission

    os.environ.clear()
    os.environ.update(env)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    DelayedSubmission.load(pickle).result()


def command_main(words: list[str], env: Mapping[str, str], told: str) -> None:
    """`hpcjobs words`; what it printed, in the file `told`."""
    from hpcjobs.cli.app import main

    os.environ.clear()
    os.environ.update(env)
    with open(told, "w", buffering=1) as output:
        sys.stdout = sys.stderr = output
        code = main(words)
        output.flush()
        os._exit(code)


def _waits_for(script: str) -> set[str]:
    found = re.search(r"--dependency=afterany:(\S+)", script)
    return set(found[1].split(":")) if found else set()


class CommandTrial:
    """A run of a setting under `folder`; which commands meet, and which are cut short, is drawn from `rng`."""

    def __init__(self, folder: Path, rng: random.Random, setting: Setting) -> None:
        self.counts, self.problems = Counter[str](), list[str]()
        self._folder, self._rng, self._setting, self._told = folder, rng, setting, 0
        (folder / "runs").mkdir(parents=True)
        self.paths, self._slurm = RunPaths(folder / "runs" / RUN), QueueSlurm(folder / "slurm")
        self._env = clean_environment() | {
            "PATH": f"{self._slurm.bin}{os.pathsep}{os.environ['PATH']}", "HPCJOBS_RUNS": str(folder / "runs"),
        }  # fmt: skip
        self._cluster = SmallCluster(self._slurm, self._env)

    def run(self) -> None:
        """All of it."""
        try:
            self._submit()
            for _ in range(self._rng.randint(2, 5)):
                self._cluster.run(self._rng.uniform(0.0, 0.8))
                self._at_once(*self._rng.choices(COMMANDS, k=self._rng.randint(1, 4)))
                self._check_records()
            self._finish()
            self._remove()
        finally:
            self._cluster.end()

    def _submit(self) -> None:
        template = self._setting.plan(self._folder / "template")
        where = ("--config", str(template.config), "--run-dir", str(self.paths.root), "--name", RUN)
        words = ("submit", "eval", *where, "--yes", "--executor", "slurm")
        shape = ("--ntasks-per-node", str(self._rng.randint(1, 3)))
        for again in range(20):
            code, text = self._commands([[*words, *shape]], cut=again < 2)[0]
            if self.paths.root.exists():
                return
            self._say(code is None, f"submit ended with {code} and left no run: {text}")
            self._commands([["runs", "--prune"]], cut=False)
            left = os.listdir(self._folder / "runs")
            self._say(not left, f"a submit that was cut short has burnt a name: {left}")

    def _at_once(self, *names: str) -> None:
        self.counts["commands"] += len(names)
        for name, (code, text) in zip(names, self._commands([[name, RUN] for name in names]), strict=True):
            wrong = "Traceback" in text or "internal error" in text or (code is not None and code not in (0, 1, 2, 3))
            self._say(not wrong, f"{name} ended with {code}: {text}")

    def _commands(self, commands: list[list[str]], cut: bool = True) -> list[tuple[int | None, str]]:
        """(exit code, output) of commands that begin at the same moment; None for one that was cut short."""
        files = [self._folder / f"told-{self._told + number}" for number in range(len(commands))]
        self._told += len(commands)
        jobs = zip(commands, files, strict=True)
        began = [start_process(command_main, one, self._env, str(file)) for one, file in jobs]
        cuts = [
            time.monotonic() + self._rng.uniform(*_CUT) if cut and self._rng.random() < _CUT_SHORT else None
            for _ in commands
        ]
        end, killed = time.monotonic() + _PATIENCE, set[int]()
        while any(process.exitcode is None for process in began) and time.monotonic() < end:
            for number, (process, moment) in enumerate(zip(began, cuts, strict=True)):
                if moment and time.monotonic() > moment and process.exitcode is None:
                    process.kill()
                    process.join()
                    killed.add(number)
            self._cluster.run(0.02)
        self.counts["cut short"] += len(killed)
        found = list[tuple[int | None, str]]()
        for number, (process, file) in enumerate(zip(began, files, strict=True)):
            text = file.read_text(errors="replace") if file.exists() else ""
            self._say(process.exitcode is not None, f"{commands[number]} has hung: {text}")
            process.kill()
            found.append((None if number in killed else process.exitcode, text))
        return found

    def _check_records(self) -> None:
        known = [job for one in known_launches_of(self.paths, self._env) for job in one]
        unknown = self._slurm.states().keys() - set(known)
        self.counts["unrecorded"] += len(unknown)
        self._say(not unknown, f"jobs without a record: {sorted(unknown)}")
        self._say(len(known) == len(set(known)), f"jobs with two records: {known}")

    def _finish(self) -> None:
        """Until it is complete, resumed wherever it stopped short."""
        for _ in range(_RESUMES):
            self._say(self._cluster.drain(), f"jobs never end: {self._slurm.states()}")
            self._check_records()
            if self.paths.metrics.exists() and MetricsFile.read(self.paths.metrics).verdict.state == RunState.COMPLETE:
                break
            [(code, text)] = self._commands([["resume", RUN]], cut=False)
            self._say(code in (0, 3), f"resume ended with {code}: {text}")
        else:
            self._say(False, f"not complete after {_RESUMES} resumes")
            return
        rounds = [(self.paths.results.read_bytes(), said(self.paths))]
        self._commands([["merge", RUN], ["score", RUN], ["report", RUN]], cut=False)
        rounds.append((self.paths.results.read_bytes(), said(self.paths)))
        wrong = any(found != self._setting.expected() for found in rounds)
        self.counts["wrong"] += wrong
        self._say(not wrong, "the results differ from the undisturbed run's")

    def _remove(self) -> None:
        """Nothing lives, and the name is free."""
        [(code, text)] = self._commands([["rm", RUN]], cut=False)
        left = os.listdir(self._folder / "runs")
        self.counts["burnt"] += bool(left)
        self._say(code == 0 and not left, f"rm ended with {code} and left {left}: {text}")

    def _say(self, right: bool, problem: str) -> None:
        if not right:
            self.problems.append(problem)


def known_launches_of(paths: RunPaths, env: Mapping[str, str]) -> list[list[str]]:
    """The jobs of each launch that hpcjobs knows of, asked in the user's environment."""
    before = dict(os.environ)
    os.environ.update({"PATH": env["PATH"]})
    try:
        return [list(one.jobs.values()) for one in known_launches(paths)] if read_launches(paths) else []
    finally:
        os.environ["PATH"] = before["PATH"]


def run_command_trial(folder: Path, rng: random.Random) -> tuple[Counter[str], list[str], str]:
    """One trial in `folder`: what was counted, what was wrong, and what it was."""
    setting = Setting(rng.randint(40, 160), rng.choice((1, 4, 8)), rng.uniform(0.005, 0.03))
    trial = CommandTrial(folder, rng, setting)
    trial.run()
    return trial.counts, trial.problems, f"commands {setting}"


