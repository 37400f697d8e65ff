"""SIGKILL before and after each operation of submit, join, resume, cancel and rm: what is left leads on by one command.

In CI some of the operations; all of them: HPCJOBS_KILLS=whole make test ARGS="tests/commands/test_killed_commands.py"
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpcjobs.cli.app import main
from hpcjobs.commands.cancel import cancel
from hpcjobs.commands.status import read_status
from hpcjobs.launch.jobs import known_launches, local_processes
from hpcjobs.run_folder.paths import RunPaths, list_runs
from hpcjobs.run_folder.process import processes_with
from hpcjobs.run_folder.run_state import RunState
from hpcjobs.run_folder.submission import read_launches
from tests.kill_points import MARK, killed_at, operations
from tests.queue_slurm import QueueSlurm
from tests.runs import wait_for

WHOLE = os.environ.get("HPCJOBS_KILLS") == "whole"


@dataclass(frozen=True)
class Place:
    """A user's folder, with its runs and its Slurm. It can be brought back to what it was."""

    home: Path
    slurm: QueueSlurm

    @property
    def runs(self) -> Path:
        return self.home / "place" / "runs"

    @property
    def paths(self) -> RunPaths:
        return RunPaths(self.runs / "a")

    def keep(self) -> None:
        shutil.rmtree(self.home / "kept", ignore_errors=True)
        shutil.copytree(self.home / "place", self.home / "kept", symlinks=True)

    def bring_back(self) -> None:
        shutil.rmtree(self.home / "place")
        shutil.copytree(self.home / "kept", self.home / "place", symlinks=True)


@pytest.fixture
def place(ram: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    (ram / "place" / "runs").mkdir(parents=True)
    place = Place(ram, QueueSlurm(ram / "place" / "slurm"))
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_", "HPCJOBS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{place.slurm.bin}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HPCJOBS_RUNS", str(place.runs))
    monkeypatch.chdir(ram)
    yield place
    for paths in list_runs(place.runs):
        cancel(paths)


def words_of(executor: str, delay: float = 0.0) -> list[str]:
    """A submit of a run of five samples."""
    settings = ("model.engine=dummy", "run.heartbeat=0.2", f"model.dummy_delay={delay}")
    data = ["--data", "unified", "--max-samples", "5", "--ntasks-per-node", "1", "--executor", executor]
    return ["submit", "eval", "--name", "a", *data, *(word for one in settings for word in ("--set", one)), "--yes"]


def points(count: int, some: int) -> range:
    """The operations to try: all, or about `some` with a fixed stride."""
    return range(0, count, 1 if WHOLE else -(-count // some))


def settled(place: Place) -> None:
    """Wait until nothing of the killed command runs but what belongs to a launch: sbatch outlives who called it."""

    left: list[int] = []

    def alone() -> bool:
        launches = read_launches(place.paths) if place.paths.root.exists() else []
        ours = {process.pid for launch in launches for process in local_processes(launch)}
        left[:] = {one.pid for one in processes_with(MARK, str(place.home / "place"))} - ours
        return not left

    wait_for(alone, f"the end of processes without a record: {left}")


def next_command(text: str) -> list[str]:
    """The first command that a message names."""
    match = re.search(r"hpcjobs ((?:resume|merge|cancel|submit|rm|status) \S+)", text)
    assert match, f"no command in: {text}"
    return match[1].rstrip(",;").split()


def every_job_is_known(place: Place, after: str) -> None:
    known = {job_id for one in known_launches(place.paths) for job_id in one.jobs.values()}
    assert place.slurm.states().keys() <= known, f"jobs without a record {after}"


def leads_on(place: Place, executor: str, capsys: pytest.CaptureFixture[str], after: str) -> None:
    """Whatever a killed command has left can be listed, and goes on, or begins, by the command that is named."""
    settled(place)
    if not place.paths.root.exists():
        assert list_runs(place.runs) == [], after
        assert main(["runs", "--prune"]) == 0
        assert os.listdir(place.runs) == [], after
        assert main(words_of(executor)) == 0, f"the name is burnt {after}"
        return
    assert [paths.root.name for paths in list_runs(place.runs)] == ["a"], after
    assert main(["status", "a"]) == 0
    status = read_status(place.paths)
    assert status.state != RunState.UNKNOWN, after
    if executor == "slurm":
        every_job_is_known(place, after)
    if status.over and status.state != RunState.COMPLETE:
        command = next_command(" ".join(status.notes) or f"hpcjobs resume {place.paths.root}")
        assert main(command) in (0, 3), f"{command} {after}: {capsys.readouterr().err}"
        if command[0] == "merge":
            assert main(["resume", "a"]) == 0, after
    if executor == "slurm":
        every_job_is_known(place, after)
        assert place.slurm.live(), f"nothing is queued {after}"
    assert main(["cancel", "a"]) == 0, after
    assert not place.slurm.live(), f"jobs that cancel does not end {after}"
    settled(place)
    assert [one for launch in read_launches(place.paths) for one in local_processes(launch)] == [], after
    capsys.readouterr()


def on_each(
    place: Place, executor: str, words: list[str], some: int, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    """Kill `hpcjobs words` at its operations, from the same beginning each time; returns them."""
    place.keep()
    code, seen = operations(place.home / "place", words, place.home / "seen")
    assert code == 0
    cancel(place.paths) if place.paths.plan.exists() else None
    for at in points(len(seen), some):
        place.bring_back()
        after = f"after a kill at {at} of {len(seen)}: {seen[at]}"
        if killed_at(place.home / "place", at, words, place.home / "seen"):
            leads_on(place, executor, capsys, after)
    return seen


def test_submit_to_slurm(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    seen = on_each(place, "slurm", words_of("slurm"), 8, capsys)
    assert len([one for one in seen if one.startswith("start ") and "sbatch" in one]) == 3, seen  # it is asked, too
    assert len(seen) > 60


def test_join_in_slurm(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words_of("slurm")) == 0
    place.slurm.set("RUNNING")
    on_each(place, "slurm", ["join", "a"], 6, capsys)


def test_resume_in_slurm(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words_of("slurm")) == 0
    assert main(["cancel", "a"]) == 0
    on_each(place, "slurm", ["resume", "a"], 6, capsys)


def test_cancel_and_rm_in_slurm(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words_of("slurm")) == 0
    place.slurm.set("RUNNING")
    on_each(place, "slurm", ["cancel", "a"], 2, capsys)
    place.bring_back()
    assert main(["cancel", "a"]) == 0
    on_each(place, "slurm", ["rm", "a"], 3, capsys)


def test_submit_on_this_machine(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    on_each(place, "local", words_of("local", delay=60.0), 3, capsys)


def test_resume_on_this_machine(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words_of("local", delay=60.0), "--plan-only"]) == 0
    on_each(place, "local", ["resume", "a"], 2, capsys)


def test_join_on_this_machine(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """The run that is joined is started anew each time: its processes cannot be brought back."""
    assert main(words_of("local", delay=60.0)) == 0
    code, seen = operations(place.home / "place", ["join", "a"], place.home / "seen")
    assert code == 0
    assert main(["cancel", "a"]) == 0
    for at in points(len(seen), 2):
        assert main(["resume", "a"]) == 0
        if killed_at(place.home / "place", at, ["join", "a"], place.home / "seen"):
            leads_on(place, "local", capsys, f"after a kill at {at} of {len(seen)}: {seen[at]}")
