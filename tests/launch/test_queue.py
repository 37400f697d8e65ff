"""What squeue and sacct are asked, and how often; what the user's shell and site add does no harm."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hpcjobs.errors import LaunchError
from hpcjobs.launch import slurm
from tests.fake_slurm import FakeSlurm

OPTIONS = {
    "SQUEUE_PARTITION": "urgent", "SQUEUE_STATES": "R", "SQUEUE_USERS": "root", "SQUEUE_FORMAT": "%i",
    "SQUEUE_SORT": "x", "SACCT_FEDERATION": "1", "SACCT_LOCAL": "1", "SCANCEL_PARTITION": "urgent",
    "SCANCEL_INTERACTIVE": "1", "SLURM_TIME_FORMAT": "relative", "SLURM_BITSTR_LEN": "3", "SBATCH_PARTITION": "urgent",
}  # fmt: skip


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{fake.bin}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    return fake


@pytest.mark.parametrize("name", ["squeue", "sacct", "scancel", "sbatch"])
def test_options_in_the_users_environment_reach_no_command(
    name: str, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in OPTIONS.items():
        monkeypatch.setenv(variable, value)
    (fake.bin / name).write_text(f"#!/bin/bash\nenv > {fake.here}/seen\necho 7\n")
    Path("job.sh").write_text("#!/bin/bash\n")
    slurm.submit(Path("job.sh"), "job")
    slurm.job_states(["7"])
    slurm.cancel(["7"])
    seen = {line.partition("=")[0] for line in (fake.here / "seen").read_text().splitlines()}
    assert "PATH" in seen
    assert not seen & OPTIONS.keys()


def test_lines_of_another_form_are_passed_over(fake: FakeSlurm) -> None:
    fake.answer(
        "squeue",
        "NOTICE: maintenance on Monday\nCLUSTER: east\n\n---- | ---- | ---- | ---- | ----\n7|RUNNING|None|n1\n"
        "JOBID|STATE|REASON|NODELIST|COMMAND\n12\n8|\n",
    )
    accounted = "sacct: site notice | of | four | parts\n9|TIMEOUT|n2|0:0\n10|COMPLETED\nJobID|State|NodeList|Exit\n"
    fake.answer("sacct", accounted)
    states = slurm.job_states(["7", "8", "9", "10"])
    assert {job_id: job.state for job_id, job in states.items()} == {
        "7": "RUNNING", "8": "UNKNOWN", "9": "TIMEOUT", "10": "UNKNOWN",
    }  # fmt: skip


def test_in_one_look_each_command_is_asked_once_for_all(fake: FakeSlurm) -> None:
    fake.answer("squeue", "7|RUNNING|None|n1\n")
    fake.answer("sacct", "8|TIMEOUT|n2|0:0\n9|COMPLETED|n2|0:0\n")
    with slurm.one_look(expected=["7", "8", "9", "10", "no job"]):
        assert slurm.find_submitted(["key"]) == {}
        assert [slurm.job_states([job])[job].state for job in ("7", "8", "9", "10")] == [
            "RUNNING", "TIMEOUT", "COMPLETED", "UNKNOWN",
        ]  # fmt: skip
        with slurm.one_look():
            assert slurm.job_states(["8"])["8"].state == "TIMEOUT"
    assert len(fake.calls("squeue")) == 1
    assert [call.rpartition("=")[2] for call in fake.calls("sacct")] == ["8,9,10"]
    assert slurm.job_states(["7"])["7"].state == "RUNNING"
    assert len(fake.calls("squeue")) == 2, "the look was over"


def test_a_controller_that_hangs_costs_one_deadline(fake: FakeSlurm) -> None:
    (fake.bin / "squeue").write_text(f"#!/bin/bash\necho asked >> {fake.here}/squeue.calls\nexec sleep 60\n")
    begun = time.monotonic()
    with slurm.one_look(0.5):
        for job in ("7", "8", "9"):
            with pytest.raises(LaunchError, match=r"squeue did not answer within 0\.\d s"):
                slurm.job_states([job])
        with pytest.raises(LaunchError, match="did not answer"):
            slurm.find_submitted(["key"])
    assert time.monotonic() - begun < 30, "it waited for a command that hangs"
    assert fake.calls("squeue") == ["asked"]
