"""hpcjobs.launch.slurm against programs that answer as Slurm's do."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hpcjobs.errors import LaunchError
from hpcjobs.launch import slurm
from hpcjobs.launch.slurm import JobState
from tests.fake_slurm import FakeSlurm


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{fake.bin}:/usr/bin:/bin")
    (tmp_path / "job.sh").write_text("#!/bin/bash\n")
    monkeypatch.chdir(tmp_path)
    return fake


def test_a_job_id_with_and_without_its_cluster(fake: FakeSlurm) -> None:
    assert slurm.submit(Path("job.sh"), "job") == "100"
    assert fake.calls("sbatch") == ["--parsable job.sh"]
    assert fake.script(100) == "#!/bin/bash\n"
    fake.answer("sbatch", "sbatch: a site's plugin says hello 5\n123\n")
    assert slurm.submit(Path("job.sh"), "job") == "123"


def test_a_refusal_has_sbatchs_own_words(fake: FakeSlurm) -> None:
    fake.refuse("sbatch: error: invalid partition specified: gup\nsbatch: error: Batch job submission failed\n")
    with pytest.raises(LaunchError, match=r"invalid partition specified: gup .*submission failed") as error:
        slurm.submit(Path("job.sh"), "job")
    assert "\n" not in str(error.value)


def test_an_answer_without_a_job_id(fake: FakeSlurm) -> None:
    fake.answer("sbatch", "Submitted\n")
    with pytest.raises(LaunchError, match=r"no job id.*Submitted"):
        slurm.submit(Path("job.sh"), "job")


def test_sbatch_is_not_told_of_an_enclosing_job(fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = {
        "SLURM_JOB_ID": "7", "SLURM_NTASKS": "9", "SBATCH_PARTITION": "x", "SRUN_DEBUG": "3", "SLURM_CPU_BIND": "y",
        "SUBMITIT_EXECUTOR": "slurm", "PMI_RANK": "0", "TORCHELASTIC_RUN_ID": "z", "RANK": "3", "WORLD_SIZE": "4",
        "MASTER_PORT": "1", "ENVIRONMENT": "BATCH", "SLURM_CLUSTERS": "east",
    }  # fmt: skip
    kept = {"SLURM_CONF": "/etc/other.conf", "HF_HOME": "/hf", "MY_RANK": "5"}
    for name, value in (inside | kept).items():
        monkeypatch.setenv(name, value)
    slurm.submit(Path("job.sh"), "job")
    env = fake.env(100)
    assert not inside.keys() & env.keys()
    assert {name: env.get(name) for name in kept} == kept


def test_states_come_from_squeue_then_sacct_then_nowhere(fake: FakeSlurm) -> None:
    fake.answer("squeue", "7|RUNNING|None|n[1-2]\n8|PENDING|Resources|\n99|RUNNING|None|n3\n")
    fake.answer("sacct", "9|CANCELLED by 0|n4|0:15\n10|COMPLETED|n5|0:0\n")
    states = slurm.job_states(["7", "8", "9", "10", "11"])
    assert states == {
        "7": JobState(job_id="7", state="RUNNING", reason="", nodes="n[1-2]"),
        "8": JobState(job_id="8", state="PENDING", reason="Resources", nodes=""),
        "9": JobState(job_id="9", state="CANCELLED by 0", reason="", nodes="n4", exit_code="0:15", source="sacct"),
        "10": JobState(job_id="10", state="COMPLETED", reason="", nodes="n5", exit_code="0:0", source="sacct"),
        "11": JobState(job_id="11", state="UNKNOWN", source="none"),
    }
    assert "--jobs=9,10,11" in fake.calls("sacct")[0]
    assert [states[job].over for job in states] == [False, False, True, True, False]
    assert [job for job in states if states[job].pending] == ["8"]


def test_accounting_is_not_asked_where_squeue_knows_and_may_be_down(fake: FakeSlurm) -> None:
    fake.answer("squeue", "7|RUNNING|None|n1\n")
    assert slurm.job_states(["7"])["7"].state == "RUNNING"
    assert fake.calls("sacct") == []
    fake.fail("sacct", "sacct: error: Problem talking to the database: Connection refused\n")
    assert slurm.job_states(["8"])["8"] == JobState(job_id="8", state="UNKNOWN", source="none")
    (fake.bin / "sacct").unlink()
    assert slurm.job_states(["8"])["8"].source == "none"


def test_a_reason_may_hold_anything_but_a_newline(fake: FakeSlurm) -> None:
    fake.answer("squeue", "7|PENDING|ReqNodeNotAvail, UnavailableNodes:n[1,3]|\n")
    assert slurm.job_states(["7"])["7"].reason == "ReqNodeNotAvail, UnavailableNodes:n[1,3]"


def test_squeue_that_does_not_answer_is_no_state(fake: FakeSlurm) -> None:
    fake.fail("squeue", "slurm_load_jobs error: Unable to contact slurm controller\n")
    with pytest.raises(LaunchError, match=r"squeue does not answer: .*Unable to contact"):
        slurm.job_states(["7"])
    assert len(fake.calls("squeue")) == 1, "a controller that is down was asked twice"
    assert "--me" in fake.calls("squeue")[0]


def test_a_squeue_that_does_not_know_me_is_told_the_user(fake: FakeSlurm) -> None:
    fake.fail("squeue", "squeue: unrecognized option '--me'\n")
    with pytest.raises(LaunchError, match="unrecognized option"):
        slurm.job_states(["7"])
    assert ["--me" in call for call in fake.calls("squeue")] == [True, False]
    assert f"--user {os.getuid()}" in fake.calls("squeue")[1]


@pytest.mark.parametrize(
    ("elements", "state", "nodes"),
    [
        (["RUNNING|None|n1", "PENDING|Resources|"], "RUNNING", "n1"),
        (["PENDING|Resources|", "COMPLETED|None|n1"], "PENDING", "n1"),
        (["COMPLETED|None|n1", "COMPLETED|None|n2", "COMPLETED|None|n1"], "COMPLETED", "n1,n2"),
        (["COMPLETED|None|n1", "FAILED|NonZeroExitCode|n2"], "FAILED", "n1,n2"),
        (["FAILED|NonZeroExitCode|n2", "COMPLETING|None|n1", "PENDING|Priority|"], "COMPLETING", "n2,n1"),
        (["COMPLETED|None|n1", "CANCELLED|None|"], "CANCELLED", "n1"),
    ],
)
def test_an_array_is_one_job(fake: FakeSlurm, elements: list[str], state: str, nodes: str) -> None:
    fake.answer("squeue", "".join(f"7|{element}\n" for element in elements) + "8|RUNNING|None|n9\n")
    found = slurm.job_states(["7"])
    assert found.keys() == {"7"}
    assert (found["7"].state, found["7"].nodes) == (state, nodes)
    assert found["7"].over is (state in ("COMPLETED", "FAILED", "CANCELLED"))
    assert found["7"].cancelled is (state == "CANCELLED")
    assert "--format=%F|" in fake.calls("squeue")[0], "%A would tell each element's own id"


def test_an_array_that_only_accounting_knows_is_one_job(fake: FakeSlurm) -> None:
    fake.answer("sacct", "7_0|COMPLETED|n1|0:0\n7_1|OUT_OF_MEMORY|n2|0:125\n7_[2-3]|CANCELLED by 0|None assigned|0:0\n")
    assert slurm.job_states(["7"])["7"].state in ("OUT_OF_MEMORY", "CANCELLED by 0")
    fake.answer("sacct", "7_0|COMPLETED|n1|0:0\n7_1|COMPLETED|n2|0:0\n")
    assert slurm.job_states(["7"])["7"] == JobState(
        job_id="7", state="COMPLETED", reason="", nodes="n1,n2", exit_code="0:0", source="sacct"
    )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds of waiting for a lost job made short."""
    monkeypatch.setattr(slurm, "_LOST_SECONDS", 0.5)
    monkeypatch.setattr(slurm, "_PAUSE", 0.01)


def script_of(key: str) -> Path:
    path = Path(f".submission-{key}.sh")
    path.write_text("#!/bin/bash\n")
    return path


def test_a_refusal_that_leaves_no_job_is_one_at_once(fake: FakeSlurm) -> None:
    fake.refuse("sbatch: error: invalid account\n")
    with pytest.raises(LaunchError, match="invalid account"):
        slurm.submit(script_of("k1"), "k1", patience=3600)
    assert len(fake.calls("sbatch")) == len(fake.calls("squeue")) == 1


@pytest.mark.parametrize("words", ["sbatch: error: plugin: nonsense\n", "Socket timed out on send/recv operation\n"])
def test_a_job_whose_reply_was_lost_is_found_by_its_key(fake: FakeSlurm, quick: None, words: str) -> None:
    assert slurm.submit(script_of("other"), "other") == "100"
    fake.lose(words, after=1)
    assert slurm.submit(script_of("k1"), "k1") == "101"
    assert len(fake.calls("sbatch")) == 2, "it was queued twice"
    assert slurm.find_submitted(["k1", "k2", "other"]) == {"k1": "101", "other": "100"}
    assert slurm.find_submitted([]) == {}


def test_a_job_that_turns_up_late_is_waited_for(fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "_PAUSE", 0.01)  # and half a minute of patience
    fake.lose("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n")
    fake.show_late(4)
    assert slurm.submit(script_of("k1"), "k1") == "100"
    assert (len(fake.calls("sbatch")), len(fake.calls("squeue"))) == (1, 5)


def test_a_job_that_never_turns_up_is_a_refusal_after_the_deadline(fake: FakeSlurm, quick: None) -> None:
    fake.refuse("sbatch: error: Batch job submission failed: Unable to contact slurm controller\n")
    begun = time.monotonic()
    with pytest.raises(LaunchError, match=r"has failed: .*Unable to contact.*has no such job: nothing was queued"):
        slurm.submit(script_of("k1"), "k1")
    assert time.monotonic() - begun >= 0.5
    assert len(fake.calls("sbatch")) == 1
    assert len(fake.calls("squeue")) > 2


def test_with_patience_a_controller_that_did_not_answer_is_asked_again(fake: FakeSlurm, quick: None) -> None:
    fake.refuse("sbatch: error: Unable to contact slurm controller (connect failure)\n", once=True)
    assert slurm.submit(script_of("k1"), "k1", patience=60) == "100"
    assert len(fake.calls("sbatch")) == 2


def test_the_twin_of_a_job_that_came_after_all_is_ended(fake: FakeSlurm, quick: None) -> None:
    slurm.submit(script_of("other"), "other")
    fake.lose("sbatch: error: Socket timed out on send/recv operation\n", after=1)
    fake.show_late(jobs=3)
    assert slurm.submit(script_of("k1"), "k1", patience=60) == "102"
    assert fake.calls("scancel") == ["101"]


def test_where_neither_sbatch_nor_squeue_answers_nothing_is_known(fake: FakeSlurm, quick: None) -> None:
    fake.lose("sbatch: error: Socket timed out on send/recv operation\n")
    fake.fail("squeue", "slurm_load_jobs error: Unable to contact slurm controller\n")
    with pytest.raises(slurm.UnsureError, match=r"Socket timed out.*not known: squeue does not answer.*next, when"):
        slurm.submit(script_of("k1"), "k1")
    assert not issubclass(slurm.UnsureError, LaunchError), "or its run would be taken for refused"
    assert len(fake.calls("sbatch")) == 1, "it may be queued: asked again it could be queued twice"
    fake.mend("squeue")
    assert slurm.find_submitted(["k1"]) == {"k1": "100"}


CONFIG = """Configuration data as of 2026-01-31T12:00:00
AccountingStorageHost   = localhost
MaxArraySize            = 4
KillWait                = 30 sec
SchedulerParameters     = max_array_tasks=4,bf_continue

Slurmctld(primary) at n1 is UP
"""


def test_limits_are_what_scontrol_says(fake: FakeSlurm) -> None:
    assert (slurm.limits(), slurm.most_array_tasks()) == ({}, 1001)
    fake.answer("scontrol", CONFIG)
    found = slurm.limits()
    assert fake.calls("scontrol")[-1] == "show config"
    assert (found["MaxArraySize"], found["KillWait"]) == ("4", "30 sec")
    assert found["SchedulerParameters"] == "max_array_tasks=4,bf_continue"
    assert not any("Slurmctld" in name for name in found)
    assert slurm.most_array_tasks() == 4
    fake.answer("scontrol", CONFIG.replace("= 4", "= 0"))
    assert slurm.most_array_tasks() == 1001
    (fake.bin / "scontrol").unlink()
    assert slurm.limits() == {}


def test_cancel_ends_the_named_jobs_and_no_others(fake: FakeSlurm) -> None:
    slurm.cancel(["7", "8", "-u", "all", ""])
    assert fake.calls("scancel") == ["7 8"]
    slurm.cancel([])
    slurm.cancel(["supervisor"])
    assert len(fake.calls("scancel")) == 1


def test_cancel_of_what_is_over_is_no_error_but_others_are(fake: FakeSlurm) -> None:
    fake.fail("scancel", "scancel: error: Kill job error on job id 7: Invalid job id specified\n")
    slurm.cancel(["7"])
    fake.fail("scancel", "scancel: error: Access/permission denied\n")
    with pytest.raises(LaunchError, match=r"scancel 7: .*permission denied"):
        slurm.cancel(["7"])


def test_a_machine_without_slurm(fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert slurm.available()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not slurm.available()
    with pytest.raises(LaunchError, match=r"sbatch is not here: this machine has no Slurm"):
        slurm.submit(Path("job.sh"), "job")
