"""Many runs in one list: Slurm asked once, files where it is silent, and each run that cannot be read named."""

from __future__ import annotations

import json
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hpcjobs.launch import queue
from hpcjobs.run_folder.heartbeat import Vitals, write_heartbeat
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity
from hpcjobs.run_folder.rank_state import RankState
from hpcjobs.run_folder.submission import Launch, record_launch
from tests.fake_slurm import Shell
from tests.runs import plan_run


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    (tmp_path / "home").mkdir()
    shell = Shell(tmp_path / "home", monkeypatch, capsys)
    for number in range(4):
        paths = plan_run(shell.runs / f"r{number}", 3)
        jobs = {"work": str(10 * number + 1), "merge": str(10 * number + 2)}
        record_launch(paths, Launch(number=0, executor="slurm", jobs=jobs, shape="1 node", ranks=1))
    return shell


def beat(paths: RunPaths, seconds: float) -> None:
    """The heartbeat of a rank on another machine, so many seconds old."""
    vitals = Vitals(
        rank=0, attempt="1.0.0", host="n1", world_size=1, identity=replace(Identity.own(), machine="other").values(),
        state=RankState.WORKING, beat_at=time.time() - seconds,
    )  # fmt: skip
    path = paths.heartbeat("1.0.0", 0)
    path.touch()
    write_heartbeat(path, vitals)


def test_all_runs_are_asked_for_at_once(shell: Shell) -> None:
    shell.slurm.answer("squeue", "1|RUNNING|None|n1\n2|PENDING|Dependency|\n11|PENDING|Priority|\n12|PENDING||\n")
    shell.slurm.answer("sacct", "21|CANCELLED by 0||0:0\n22|COMPLETED||0:0\n31|TIMEOUT||0:0\n32|FAILED||3:0\n")
    said = shell.run("runs", "--json")
    states = [json.loads(line)["state"] for line in said.out.splitlines()]
    assert states == ["running", "pending", "cancelled", "failed"]
    assert len(shell.slurm.calls("squeue")) == len(shell.slurm.calls("sacct")) == 1


def test_without_a_controller_the_files_are_shown_with_their_age(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = shell.slurm.here / "squeue.calls"
    (shell.slurm.bin / "squeue").write_text(f"#!/bin/bash\necho x >> {asked}\nexec sleep 60\n")
    monkeypatch.setattr(queue, "LOOK_SECONDS", 0.5)
    beat(RunPaths(shell.runs / "r0"), 20)
    said = shell.run("runs")
    first, second, *_ = said.out.splitlines()
    assert "running, 0/3 samples (0%), 1 rank live, 2" in first
    assert "s ago, as the files have it" in first
    assert "unknown" in second
    assert re.match(r"note    squeue did not answer within 0\.\d s", said.err)
    assert said.err.endswith("next: scontrol ping\n")
    assert shell.slurm.calls("squeue") == ["x"]
    told = shell.run("status", "r0").out
    assert "from the files alone: the newest sign of life of a rank is 2" in told
    assert "hpcjobs status" not in told, "advice that leads back to itself"


def test_runs_that_cannot_be_read_are_named_and_cost_no_other(shell: Shell) -> None:
    shell.slurm.answer("squeue", "1|RUNNING|None|n1\n2|PENDING|Dependency|\n")
    damage = {
        "plan.json": b"", "config.yaml": b"", "submission.json": b'{"launches": [', "metrics.json": b"\0\0",
        "claims/0/chunks.parquet": b"PAR1",
    }  # fmt: skip
    for number, (name, data) in enumerate(damage.items()):
        folder = shutil.copytree(shell.runs / "r3", shell.runs / f"bad{number}")
        (folder / name).write_bytes(data)
    stray = shutil.copytree(shell.runs / "r3", shell.runs / "stray")
    (stray / "claims" / "0" / "9999.done").write_text("{}")
    said = shell.run("runs")
    assert (said.code, len(said.out.splitlines())) == (0, 10)
    for name, line in [*zip(damage, sorted(line for line in said.out.splitlines() if " bad" in line), strict=True)]:
        assert " damaged " in line
        assert f"/{name} cannot be read: " in line
    (line,) = [line for line in said.out.splitlines() if " stray " in line]
    assert "claims/0 cannot be read: ValueError: has 9999.done" in line
    assert "bad0/plan.json cannot be read" in shell.run("status", "bad0").message


DAMAGE = {
    "plan.json": b"", "config.yaml": b"", "submission.json": b'{"launches": [', "claims/0/chunks.parquet": b"PAR1",
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_a_verb_on_a_damaged_run_names_the_file(shell: Shell, name: str) -> None:
    shell.slurm.answer("squeue", "31|FAILED|None|n1\n32|FAILED|None|n1\n")
    (shell.runs / "r3" / name).write_bytes(DAMAGE[name])
    for verb in ("status", "merge", "score", "report", "cancel", "resume", "join", "logs"):
        said = shell.run(verb, "r3")
        assert "internal error" not in said.err, (verb, said)
        nothing_read = said.code == 0 or "does not exist yet" in said.err
        assert nothing_read or (name.rpartition("/")[0] or name) in said.err, (verb, said)
    said = shell.run("rm", "r3", "--yes")
    assert said.code == 2
    assert said.err.rstrip().endswith(f"then rm -r {shell.runs}/r3")


@pytest.mark.parametrize("verb", ["resume", "join"])
def test_where_slurm_is_silent_nothing_more_is_started(shell: Shell, verb: str) -> None:
    shell.slurm.fail("squeue", "slurm_load_jobs error: Unable to contact slurm controller\n")
    said = shell.run(verb, "r0")
    assert said.code == 2
    assert said.message.startswith("whether r0 still goes on is not known (squeue does not answer)")
    assert "scontrol ping" in said.message
    assert "hpcjobs" not in said.message, "advice that leads back to itself"
    assert shell.slurm.calls("sbatch") == []
