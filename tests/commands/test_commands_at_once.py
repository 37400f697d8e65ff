"""Commands at the same moment: every job is in the records, each that stops says why, and cancel ends all.

In CI some rounds; all of them: HPCJOBS_KILLS=whole make test ARGS="tests/commands/test_commands_at_once.py"
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import sys
import time
from pathlib import Path

import pytest

from hpcjobs.cli.app import main
from hpcjobs.commands.finish import finish_run
from hpcjobs.launch.jobs import known_launches
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.submission import read_launches
from tests.commands.test_killed_commands import Place, place, words_of
from tests.runs import finish, start_process

__all__ = ["place"]
ROUNDS = 20 if os.environ.get("HPCJOBS_KILLS") == "whole" else 2


def command(words: list[str], env: dict[str, str], go: str, told: str) -> None:
    """`hpcjobs words` as soon as the file `go` is there; what it printed on stderr, in the file `told`."""
    from hpcjobs.cli.app import main

    os.environ.clear()
    os.environ.update(env)
    while not os.path.exists(go):
        time.sleep(0.001)
    with open(told, "w") as errors, open(os.devnull, "w") as null:
        sys.stdout, sys.stderr = null, errors
        code = main(words)
    os._exit(code)


def at_once(place: Place, *commands: list[str]) -> list[tuple[int, str]]:
    """(exit code, stderr) of commands that begin at the same moment."""
    go, told = place.home / "go", [place.home / f"told-{number}" for number in range(len(commands))]
    go.unlink(missing_ok=True)
    started = [
        start_process(command, words, dict(os.environ), str(go), str(file))
        for words, file in zip(commands, told, strict=True)
    ]
    time.sleep(0.05)
    go.touch()
    return [(finish(process), file.read_text()) for process, file in zip(started, told, strict=True)]


def all_known(place: Place) -> None:
    launches = read_launches(place.paths)
    recorded = [job_id for one in launches for job_id in one.jobs.values()]
    files = {file.name: file.read_text()[-200:] for file in sorted(place.paths.launches.iterdir())}
    assert sorted(recorded) == sorted(place.slurm.states()), f"jobs without a record, or with two: {files}"
    assert known_launches(place.paths) == launches, "the records say it without the queue"
    written = read_json(place.paths.submission)["launches"]
    assert [one["jobs"] for one in written] == [one.jobs for one in launches]


def dependencies(place: Place, job_id: str) -> set[str]:
    script = Path((place.slurm.jobs / job_id).read_text().partition("|")[2].strip())
    found = re.search(r"--dependency=afterany:(\S+)", (script.parent / f"{job_id}_submission.sh").read_text())
    assert found
    return set(found[1].split(":"))


def test_four_joins(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words_of("slurm")) == 0
    place.slurm.set("RUNNING")
    place.keep()
    for number in range(ROUNDS):
        place.bring_back()
        told = at_once(place, *[["join", "a"]] * 4)
        assert [code for code, _ in told] == [0] * 4, "\n".join(text for _, text in told)
        all_known(place)
        assert [one.number for one in read_launches(place.paths)] == list(range(5))
        assert len(place.slurm.states()) == 10
        judged(place, random.Random(number))
        place.bring_back()
        at_once(place, *[["join", "a"]] * 4)
        assert main(["cancel", "a"]) == 0
        assert not place.slurm.live()


def judged(place: Place, shuffle: random.Random) -> None:
    """The ranks' jobs end in any order, each merge runs after those that it waits for: the last one judges the run."""
    launches = read_launches(place.paths)
    work = [job_id for one in launches for job_id in one.work_jobs]
    merges = {one.jobs["merge"]: one.number for one in launches if one.jobs["merge"] in place.slurm.live()}
    shuffle.shuffle(work)
    for job_id in work:
        assert not place.paths.metrics.exists(), "judged while ranks are at work"
        place.slurm.set("COMPLETED", job_id)
        for merge in [one for one in merges if dependencies(place, one).isdisjoint(place.slurm.live())]:
            with contextlib.suppress(SystemExit):  # nothing has run, so it ends with 3
                finish_run(str(place.paths.root), merges.pop(merge))
            place.slurm.set("COMPLETED", merge)
    assert not merges, "a merge that never starts"
    assert place.paths.metrics.exists(), "nobody has judged the run"


@pytest.mark.parametrize("before", ["running", "cancelled"])
def test_resume_beside_join_beside_cancel(place: Place, capsys: pytest.CaptureFixture[str], before: str) -> None:
    assert main(words_of("slurm")) == 0
    place.slurm.set("RUNNING")
    if before == "cancelled":
        assert main(["cancel", "a"]) == 0
    place.keep()
    for _ in range(ROUNDS):
        place.bring_back()
        told = at_once(place, ["resume", "a"], ["join", "a"], ["cancel", "a"], ["resume", "a"], ["join", "a"])
        for code, text in told:
            assert code == 0 or ("hpcjobs" in text and text.startswith(("error: ", "join    ", "resume  "))), text
        all_known(place)
        assert len(place.paths.rounds()) <= 2, "two resumes have opened a round"
        assert main(["cancel", "a"]) == 0
        assert not place.slurm.live()
        assert main(["resume", "a"]) == 0, capsys.readouterr().err
        all_known(place)


def test_rm_beside_resume(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Either it is removed, or it goes on: no job of a run that is not there."""
    assert main(words_of("slurm")) == 0
    assert main(["cancel", "a"]) == 0
    place.keep()
    for _ in range(ROUNDS):
        place.bring_back()
        (resumed, _), (removed, text) = at_once(place, ["resume", "a"], ["rm", "a"])
        assert removed == 0 or "still going" in text
        if place.paths.root.exists():
            assert (resumed, removed != 0) == (0, True)
            all_known(place)
        else:
            assert not place.slurm.live()


def test_two_submits_with_one_name(place: Place) -> None:
    for _ in range(ROUNDS):
        (first, one), (second, two) = at_once(place, words_of("slurm"), words_of("slurm"))
        assert sorted([first, second]) == [0, 2]
        assert "exists: choose another --name" in one + two
        all_known(place)
        assert main(["cancel", "a"]) == 0
        assert main(["rm", "a"]) == 0
        assert os.listdir(place.runs) == []
        place.slurm.forget()
