"""Each of Slurm's job states, told by a squeue and a sacct that print it: what status says, and what resume does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hpcjobs.commands.resume import resume
from hpcjobs.commands.status import read_status
from hpcjobs.commands.submit import Flags
from hpcjobs.launch.job_states import STATES, JobState, Phase, note
from hpcjobs.run_folder.paths import RunPaths
from tests.fake_slurm import FakeSlurm
from tests.job_states import launch_with, row_of, rows
from tests.runs import plan_run

# squeue(1) of Slurm 22.05, JOB STATE CODES.
OF_SQUEUE = [
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "CONFIGURING", "COMPLETING", "DEADLINE", "FAILED", "NODE_FAIL",
    "OUT_OF_MEMORY", "PENDING", "PREEMPTED", "RUNNING", "RESV_DEL_HOLD", "REQUEUE_FED", "REQUEUE_HOLD", "REQUEUED",
    "RESIZING", "REVOKED", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED", "SUSPENDED", "TIMEOUT",
]  # fmt: skip
# slurm.schedmd.com/job_state_codes.html, of later versions.
LATER = ["EXPEDITING", "LAUNCH_FAILED", "POWER_UP_NODE", "RECONFIG_FAIL", "UPDATE_DB"]

@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """A run whose job 100 has run, and left everything missing; job 101 has merged that."""
    paths = plan_run(tmp_path_factory.mktemp("states") / "run", 3)
    launch_with(paths, work="100", merge="101")
    return paths


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{fake.bin}:/usr/bin:/bin")
    return fake


def told(state: str, paths: RunPaths, fake: FakeSlurm, by: str) -> str:
    """The row of docs/faults.md, where this command tells the state."""
    merged = "COMPLETED" if JobState(job_id="100", state=state).over else "PENDING"
    squeue, sacct = f"100|{state}|None|\n101|{merged}|None|\n", f"100|{state}||0:0\n101|{merged}||0:0\n"
    fake.answer("squeue", squeue if by == "squeue" else "")
    fake.answer("sacct", sacct)
    return row_of(state, paths, "100")


@pytest.mark.parametrize("state", [*OF_SQUEUE, *LATER])
def test_what_a_run_does_in_each_state_is_in_the_fault_table(state: str, planned: RunPaths, fake: FakeSlurm) -> None:
    row = told(state, planned, fake, "squeue")
    assert row == rows()[state]
    assert row == told(state, planned, fake, "sacct")
    assert row.endswith("| starts the rest |") is (STATES[state].phase == Phase.OVER)


def test_what_was_preempted_and_is_not_requeued_is_resumed(
    planned: RunPaths, fake: FakeSlurm, tmp_path: Path
) -> None:
    paths = RunPaths(shutil.copytree(planned.root, tmp_path / "run"))
    fake.answer("squeue", "100|PREEMPTED|None|\n101|COMPLETED|None|\n")
    assert resume(paths, Flags(executor="slurm"), [], lambda text: None) is not None
    assert len(fake.calls("sbatch")) == 2


def test_the_table_has_no_other_states() -> None:
    assert sorted(rows()) == sorted([*OF_SQUEUE, *LATER])
    assert sorted(STATES) == sorted([*OF_SQUEUE, *LATER])


def test_a_state_of_a_later_slurm_is_taken_to_be_alive_and_said(planned: RunPaths, fake: FakeSlurm) -> None:
    fake.answer("squeue", "100|HIBERNATING|None|n1\n101|PENDING|Dependency|\n")
    status = read_status(planned)
    assert (status.state, status.over) == ("running", False)
    assert "does not know, HIBERNATING: it is taken to be alive" in status.notes[0]
    assert not JobState(job_id="7", state="").over


FACTS = {"run": "RUN", "time": "60 min", "mem": "--mem=4G"}


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (JobState(job_id="7", state="FAILED", reason="RaisedSignal:9(Killed)", nodes="n1"),
         "job 7 (work) ended with an error (FAILED, signal Killed, on n1): what happened: hpcjobs logs"),
        (JobState(job_id="7", state="FAILED", exit_code="0:9", source="sacct"), "(FAILED, signal 9)"),
        (JobState(job_id="7", state="FAILED", exit_code="3:0", source="sacct"), "(FAILED, exit code 3)"),
        (JobState(job_id="7", state="OUT_OF_MEMORY", exit_code="0:125", nodes="n2"),
         "needed more memory than it had, --mem=4G (OUT_OF_MEMORY, signal 125, on n2): next: hpcjobs resume RUN --mem"),
        (JobState(job_id="7", state="TIMEOUT"), "reached its time limit, 60 min (TIMEOUT): next: hpcjobs resume RUN"),
        (JobState(job_id="7", state="PENDING", reason="DependencyNeverSatisfied"),
         "will not start by itself (DependencyNeverSatisfied): next: hpcjobs cancel RUN"),
        (JobState(job_id="7", state="PENDING", reason="JobHeldUser"), "next: scontrol release 7"),
        (JobState(job_id="7", state="PENDING", reason="launch failed requeued held"), "next: scontrol release 7"),
        (JobState(job_id="7", state="PENDING", reason="job requeued in held state"), "next: scontrol release 7"),
        (JobState(job_id="7", state="PENDING", reason="PartitionTimeLimit"), "a shorter --time"),
        (JobState(job_id="7", state="PENDING", reason="PartitionNodeLimit"), "fewer --nodes"),
        (JobState(job_id="7", state="PENDING", reason="QOSMaxGRESPerJob"), "fewer --nodes or --gpus"),
        (JobState(job_id="7", state="PENDING", reason="InvalidAccount"), "another --account"),
    ],
)  # fmt: skip
def test_why_a_job_died_or_waits_is_told_with_what_to_change(job: JobState, words: str) -> None:
    assert words in (note(job, "work", FACTS) or "")


@pytest.mark.parametrize(
    "job",
    [
        JobState(job_id="7", state="PENDING", reason="Priority"),
        JobState(job_id="7", state="PENDING", reason="QOSMaxJobsPerUserLimit"),
        JobState(job_id="7", state="CANCELLED by 1000"),
        JobState(job_id="7", state="COMPLETED", exit_code="0:0"),
        JobState(job_id="7", state="UNKNOWN", source="none"),
    ],
)  # fmt: skip
def test_what_needs_no_change_is_not_told(job: JobState) -> None:
    assert note(job, "work", FACTS) is None


def test_an_end_of_the_merge_job_leads_to_a_merge() -> None:
    said = note(JobState(job_id="8", state="NODE_FAIL"), "merge", FACTS)
    assert said == "job 8 (merge) lost a node (NODE_FAIL): next: hpcjobs merge RUN"
