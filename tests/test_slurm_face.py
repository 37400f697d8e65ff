"""hpcjobs.slurm against programs that answer as Slurm's do."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcjobs import slurm
from hpcjobs.errors import LaunchError
from hpcjobs.slurm import JobState

from .fake_slurm import FakeSlurm


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
        "MASTER_PORT": "1", "ENVIRONMENT": "BATCH",
    }  # fmt: skip
    kept = {"SLURM_CONF": "/etc/other.conf", "SLURM_CLUSTERS": "east", "HF_HOME": "/hf", "MY_RANK": "5"}
    for name, value in (inside | kept).items():
        monkeypatch.setenv(name, value)
    slurm.submit(Path("job.sh"), "job")
    env = fake.env(100)
    assert not inside.keys() & env.keys()
    assert {name: env.get(name) for name in kept} == kept


def test_only_a_question_queues_nothing(fake: FakeSlurm) -> None:
    assert slurm.test_only(Path("job.sh")) is None
    fake.refuse("allocation failure: Requested node configuration is not available\n")
    assert slurm.test_only(Path("job.sh")) == "allocation failure: Requested node configuration is not available"
    assert all("--test-only" in call for call in fake.calls("sbatch"))
    assert not list((fake.here / "scripts").iterdir())


def test_states_come_from_squeue_then_sacct_then_nowhere(fake: FakeSlurm) -> None:
    fake.answer("squeue", "7|RUNNING|None|n[1-2]\n8|PENDING|Resources|\n99|RUNNING|None|n3\n")
    fake.answer("sacct", "9|CANCELLED by 0|n4|0:15\n10|COMPLETED|n5|0:0\n")
    states = slurm.job_states(["7", "8", "9", "10", "11"])
    assert states == {
        "7": JobState("7", "RUNNING", "", "n[1-2]"),
        "8": JobState("8", "PENDING", "Resources", ""),
        "9": JobState("9", "CANCELLED by 0", "", "n4", "0:15", "sacct"),
        "10": JobState("10", "COMPLETED", "", "n5", "0:0", "sacct"),
        "11": JobState("11", "UNKNOWN", source="none"),
    }
    assert "--jobs=9,10,11" in fake.calls("sacct")[0]
    assert [states[job].over for job in states] == [False, False, True, True, False]
    assert [job for job in states if states[job].pending] == ["8"]


def test_accounting_is_not_asked_where_squeue_knows_and_may_be_down(fake: FakeSlurm) -> None:
    fake.answer("squeue", "7|RUNNING|None|n1\n")
    assert slurm.job_states(["7"])["7"].state == "RUNNING"
    assert fake.calls("sacct") == []
    fake.fail("sacct", "sacct: error: Problem talking to the database: Connection refused\n")
    assert slurm.job_states(["8"])["8"] == JobState("8", "UNKNOWN", source="none")
    (fake.bin / "sacct").unlink()
    assert slurm.job_states(["8"])["8"].source == "none"


def test_a_reason_may_hold_anything_but_a_newline(fake: FakeSlurm) -> None:
    fake.answer("squeue", "7|PENDING|ReqNodeNotAvail, UnavailableNodes:n[1,3]|\n")
    assert slurm.job_states(["7"])["7"].reason == "ReqNodeNotAvail, UnavailableNodes:n[1,3]"


def test_squeue_that_does_not_answer_is_no_state(fake: FakeSlurm) -> None:
    fake.fail("squeue", "slurm_load_jobs error: Unable to contact slurm controller\n")
    with pytest.raises(LaunchError, match=r"squeue does not answer: .*Unable to contact"):
        slurm.job_states(["7"])
    assert "--me" in fake.calls("squeue")[0]
    assert "--user" in fake.calls("squeue")[1]


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


@pytest.mark.parametrize(
    ("state", "over"),
    [
        ("COMPLETED", True), ("FAILED", True), ("TIMEOUT", True), ("OUT_OF_MEMORY", True), ("NODE_FAIL", True),
        ("CANCELLED by 1000", True), ("DEADLINE", True), ("BOOT_FAIL", True),
        ("RUNNING", False), ("PENDING", False), ("COMPLETING", False), ("REQUEUED", False), ("SUSPENDED", False),
        ("PREEMPTED", False), ("UNKNOWN", False), ("", False),
    ],
)  # fmt: skip
def test_which_states_are_the_end(state: str, over: bool) -> None:
    assert JobState("7", state).over is over
