"""submit and resume: what is queued, what is written, what a refusal leaves."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import time
from pathlib import Path

import pytest

from hpcjobs.commands.submit import FLAGS, Flags, flag_layer
from hpcjobs.config.resolve import read_config
from hpcjobs.errors import LaunchError
from hpcjobs.launch import slurm
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity, process_start
from hpcjobs.run_folder.submission import read_launches
from tests.fake_slurm import Shell

DUMMY = ("--set", "model.engine=dummy")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


@pytest.fixture
def queued(shell: Shell) -> RunPaths:
    """A run of two jobs that are in the queue."""
    assert shell.run("submit", "eval", *DUMMY, "--name", "a", "--nodes", "2", "--ntasks-per-node", "3").code == 0
    shell.slurm.answer("squeue", "100|PENDING|Priority|\n101|PENDING|Dependency|\n")
    return RunPaths(shell.runs / "a")


def test_work_and_merge_are_queued_and_recorded(shell: Shell, queued: RunPaths) -> None:
    [launch] = read_launches(queued)
    assert launch.jobs == {"work": "100", "merge": "101"}
    assert (launch.number, launch.executor, launch.ranks) == (0, "slurm", 6)
    assert launch.scripts == {"work": shell.slurm.script(100), "merge": shell.slurm.script(101)}
    assert "#SBATCH --dependency=afterany:100\n" in shell.slurm.script(101)
    assert all(call.startswith("--parsable ") for call in shell.slurm.calls("sbatch"))
    pickles = {"work-0.pkl", "merge-0.pkl"}
    assert launch.keys.keys() == launch.jobs.keys()
    assert {path.name for path in queued.logs.iterdir()} == {"100_submission.sh", "101_submission.sh"} | pickles


def test_an_enclosing_job_is_not_handed_on(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = {
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "9",
        "SLURM_MEM_PER_NODE": "1",
        "SBATCH_PARTITION": "x",
        "RANK": "1",
    }
    for name, value in (inside | {"SLURM_CONF": "/etc/mine.conf", "HF_TOKEN": "kept by sbatch"}).items():
        monkeypatch.setenv(name, value)
    assert shell.run("submit", "eval", *DUMMY).code == 0
    for job in (100, 101):
        env = shell.slurm.env(job)
        assert not inside.keys() & env.keys()
        assert env["SLURM_CONF"] == "/etc/mine.conf"
        assert env["HF_TOKEN"] == "kept by sbatch"


def test_no_secret_of_the_shell_is_written_down(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_hunter2")
    assert shell.run("submit", "eval", *DUMMY, "--name", "a").code == 0
    files = [path for path in (shell.runs / "a").rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"hunter2" in path.read_bytes()]


def test_what_is_pickled_is_a_name_and_a_path(shell: Shell, queued: RunPaths) -> None:
    pickle = (queued.logs / "work-0.pkl").read_bytes()
    assert b"hpcjobs.launch.entry" in pickle
    assert b"hpcjobs.worker" in pickle
    assert b"guard_rank" in pickle
    assert str(queued.root).encode() in pickle
    assert b"exact_match" not in pickle


@pytest.mark.parametrize("after", [0, 1])
def test_a_refusal_leaves_neither_jobs_nor_folder(shell: Shell, after: int) -> None:
    shell.slurm.refuse("sbatch: error: invalid account\n", after)
    said = shell.run("submit", "eval", *DUMMY, "--name", "a")
    assert said.code == 1
    assert "invalid account" in said.err
    assert "Traceback" not in said.err
    assert shell.left() == []
    assert shell.slurm.calls("scancel") == (["100"] if after else [])


def test_script_runs_have_no_merge_job(shell: Shell) -> None:
    shell.write("p.py", "")
    assert shell.run("submit", "script", "--name", "a", "--nodes", "2", "--", "p.py", "--nodes", "x y").code == 0
    paths = RunPaths(shell.runs / "a")
    assert read_launches(paths)[0].jobs == {"work": "100"}
    assert read_json(paths.plan)["argv"] == ["p.py", "--nodes", "x y"]
    assert shell.run("resume", "a").code == 2


def test_plan_only_queues_nothing(shell: Shell) -> None:
    said = shell.run("submit", "eval", *DUMMY, "--name", "a", "--plan-only")
    assert said.code == 0
    assert "planned" in said.out
    assert shell.slurm.calls("sbatch") == []
    assert read_launches(RunPaths(shell.runs / "a")) == []
    assert json.loads(shell.run("status", "a", "--json").out)["state"] == "planned"


def test_flags_are_config_keys() -> None:
    assert {one.name for one in dataclasses.fields(Flags)} == FLAGS.keys()
    layer = flag_layer(Flags(nodes=2, requeue=False), ["comment=a=b", "--hold", "nice=5"])
    assert layer.values == {
        "cluster": {"nodes": 2, "requeue": False, "sbatch": {"comment": "a=b", "hold": True, "nice": "5"}}
    }
    assert layer.places["cluster.nodes"] == "--nodes"
    assert layer.places["cluster.sbatch.hold"] == "--sbatch --hold"


def test_a_live_run_is_not_resumed(shell: Shell, queued: RunPaths) -> None:
    said = shell.run("resume", "a")
    assert said.code == 2
    assert "still going" in said.message
    assert "hpcjobs cancel a" in said.message
    assert len(read_launches(queued)) == 1


@pytest.mark.parametrize(
    ("words", "shape", "gpus"),
    [
        ([], "2 nodes x 3 tasks = 6 ranks on CPU", ""),
        (["--nodes", "1"], "1 node x 3 tasks = 3 ranks on CPU", ""),
        (["--nodes", "2", "--gpus", "8"], "2 nodes x 4 GPUs = 8 ranks", "#SBATCH --gpus-per-node=4"),
        (["--gpus-per-node", "2"], "2 nodes x 2 GPUs = 4 ranks", "#SBATCH --gpus-per-node=2"),
        (
            ["--time", "5", "--sbatch", "comment=again"],
            "2 nodes x 3 tasks = 6 ranks on CPU",
            "#SBATCH --comment=again",
        ),
    ],
)
def test_resume_takes_another_shape(shell: Shell, queued: RunPaths, words: list[str], shape: str, gpus: str) -> None:
    shell.slurm.answer("squeue", "100|FAILED|NodeFail|\n101|COMPLETED|None|\n")
    said = shell.run("resume", "a", *words)
    assert said.code == 0, said.err
    assert f"50 of 50 samples on {shape}" in said.err
    assert [launch.jobs["work"] for launch in read_launches(queued)] == ["100", "102"]
    assert gpus in shell.slurm.script(102)
    assert queued.rounds() == [0, 1]
    assert read_config(queued.config).cluster.time == (words[1] if "--time" in words else "0:30:00")


@pytest.mark.parametrize(
    "words", [["--gpus", "7"], ["--time", "soon"], ["--sbatch", "nodes=3"], ["--partition", "a\nb"]]
)
def test_a_resume_that_cannot_be_changes_nothing(shell: Shell, queued: RunPaths, words: list[str]) -> None:
    shell.slurm.answer("squeue", "")
    before = queued.config.read_bytes()
    said = shell.run("resume", "a", *words)
    assert said.code == 2
    assert said.message
    assert queued.rounds() == [0]
    assert queued.config.read_bytes() == before
    assert len(shell.slurm.calls("sbatch")) == 2


def test_resume_from_gpus_in_total_keeps_them_a_node(shell: Shell) -> None:
    assert shell.run("submit", "eval", *DUMMY, "--name", "a", "--nodes", "2", "--gpus", "8").code == 0
    shell.slurm.answer("squeue", "100|FAILED|None|n1\n101|FAILED|None|n1\n")
    assert "3 nodes x 4 GPUs" in shell.run("resume", "a", "--nodes", "3").err


def test_cancel_ends_this_runs_live_jobs_alone(shell: Shell, queued: RunPaths) -> None:
    shell.slurm.answer("squeue", "100|RUNNING|None|n1\n101|COMPLETED|None|\n555|RUNNING|None|n2\n")
    said = shell.run("cancel", "a")
    assert said.code == 0
    assert "job 100" in said.out
    assert shell.slurm.calls("scancel") == ["100"]


def test_wait_ends_with_the_runs_code(shell: Shell, queued: RunPaths) -> None:
    """Nothing was done by anybody: the merge says incomplete, and waiting ends with 3."""
    assert shell.run("merge", "a").code == 3
    shell.slurm.answer("squeue", "100|FAILED|None|n1\n101|FAILED|None|n1\n")
    from hpcjobs.commands.wait import wait

    seen: list[str] = []
    assert wait(queued, lambda status: seen.append(status.state)) == 3
    assert seen == ["incomplete"]


def test_wait_looks_again_as_soon_as_the_merge_has_written_or_the_supervisor_has_ended(
    shell: Shell, queued: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpcjobs.commands import wait

    slept: list[float] = []

    def merge(seconds: float) -> None:
        slept.append(seconds)
        queued.metrics.write_text("{}")

    monkeypatch.setattr(time, "sleep", merge)
    wait._sleep(queued, 5.0)
    assert slept == [wait._LOOK_SECONDS]

    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as supervisor:
        identity = Identity(Identity.own().machine, supervisor.pid, process_start(supervisor.pid) or "0")
        newest = dataclasses.replace(read_launches(queued)[-1], supervisor=identity.values())
        monkeypatch.setattr(wait, "read_launches", lambda _: [newest])

        def end(seconds: float) -> None:
            slept.append(seconds)
            supervisor.communicate()

        monkeypatch.setattr(time, "sleep", end)
        wait._sleep(queued, 5.0)
        assert slept == [wait._LOOK_SECONDS] * 2


DOWN = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n"
LOST = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds of waiting for a lost job made short."""
    monkeypatch.setattr(slurm, "_LOST_SECONDS", 0.3)
    monkeypatch.setattr(slurm, "_PAUSE", 0.01)


def test_a_submit_whose_reply_was_lost_goes_on_with_the_job_it_finds(shell: Shell, quick: None) -> None:
    shell.slurm.lose(LOST)
    shell.slurm.lose(LOST, after=1)
    assert shell.run("submit", "eval", *DUMMY, "--name", "a").code == 0
    [launch] = read_launches(RunPaths(shell.runs / "a"))
    assert launch.jobs == {"work": "100", "merge": "101"}
    assert len(shell.slurm.calls("sbatch")) == 2
    assert "#SBATCH --dependency=afterany:100\n" in shell.slurm.script(101)


def test_where_nobody_knows_whether_a_job_is_queued_its_folder_stays_and_finds_it_later(
    shell: Shell, quick: None
) -> None:
    shell.slurm.lose(LOST)
    shell.slurm.fail("squeue", DOWN)
    said = shell.run("submit", "eval", *DUMMY, "--name", "a")
    assert said.code == 1
    assert "hpcjobs status" in said.err
    assert "Traceback" not in said.err
    assert shell.left() == ["a"]
    paths = RunPaths(shell.runs / "a")
    [launch] = read_launches(paths)
    assert (launch.jobs, list(launch.keys)) == ({}, ["work"])
    assert {path.name for path in paths.logs.iterdir()} >= {"work-0.pkl"}, "the job would have no work"
    assert json.loads(shell.run("status", "a", "--json").out)["state"] in ("running", "unknown")

    shell.slurm.mend("squeue")
    found = json.loads(shell.run("status", "a", "--json").out)
    assert (found["state"], found["jobs"]["work"]["job_id"]) == ("pending", "100")
    assert shell.run("resume", "a").code == 2, "it is going"
    assert "job 100" in shell.run("cancel", "a").out
    assert shell.slurm.calls("scancel") == ["100"]


def test_an_array_is_split_where_slurm_takes_no_more_and_the_merge_waits_for_all(shell: Shell) -> None:
    shell.slurm.answer("scontrol", "MaxArraySize            = 4\n")
    said = shell.run("submit", "eval", *DUMMY, "--name", "a", "--array", "10", "--ntasks-per-node", "2")
    assert said.code == 0, said.err
    [launch] = read_launches(RunPaths(shell.runs / "a"))
    assert launch.jobs == {"work": "100", "work2": "101", "work3": "102", "merge": "103"}
    assert (launch.ranks, launch.notes) == (20, ())
    arrays = [line for job in range(100, 104) for line in shell.slurm.script(job).splitlines() if "--array" in line]
    assert arrays == ["#SBATCH --array=0-3", "#SBATCH --array=0-3", "#SBATCH --array=0-1"]
    assert "#SBATCH --dependency=afterany:100:101:102\n" in shell.slurm.script(103)
    assert len(set(launch.keys.values())) == 4
    assert "#SBATCH --nodes=1\n" in shell.slurm.script(100)


def test_an_array_that_fits_is_one_job_and_one_worker_is_none(shell: Shell) -> None:
    shell.slurm.answer("scontrol", "MaxArraySize            = 4\n")
    assert shell.run("submit", "eval", *DUMMY, "--name", "a", "--array", "4").code == 0
    assert read_launches(RunPaths(shell.runs / "a"))[0].jobs == {"work": "100", "merge": "101"}
    assert shell.run("submit", "eval", *DUMMY, "--name", "b", "--array", "1").code == 0
    assert "--array" not in shell.slurm.script(102)


def test_a_later_piece_that_is_refused_leaves_the_earlier_ones_to_do_all(shell: Shell) -> None:
    shell.slurm.answer("scontrol", "MaxArraySize            = 4\n")
    shell.slurm.refuse("sbatch: error: QOSMaxSubmitJobPerUserLimit\n", after=2, once=True)
    assert shell.run("submit", "eval", *DUMMY, "--name", "a", "--array", "10").code == 0
    [launch] = read_launches(RunPaths(shell.runs / "a"))
    assert launch.jobs == {"work": "100", "work2": "101", "merge": "102"}
    assert launch.keys.keys() == launch.jobs.keys(), "it would be looked for ever after"
    [note] = launch.notes
    assert note.startswith("work3: ")
    assert "QOSMaxSubmitJobPerUserLimit" in note
    assert "#SBATCH --dependency=afterany:100:101\n" in shell.slurm.script(102)
    assert note in json.loads(shell.run("status", "a", "--json").out)["notes"]
    assert shell.slurm.calls("scancel") == []


def test_join_adds_ranks_and_its_merge_takes_the_place_of_the_first(shell: Shell, queued: RunPaths) -> None:
    said = shell.run("join", "a", "--nodes", "1", "--ntasks-per-node", "2", "--partition", "other")
    assert said.code == 0, said.err
    first, second = read_launches(queued)
    assert (second.jobs, second.joined, second.round, second.ranks) == ({"join": "102", "merge": "103"}, True, 0, 2)
    assert "#SBATCH --dependency=afterany:100:102\n" in shell.slurm.script(103)
    assert "#SBATCH --partition=other\n" in shell.slurm.script(102)
    assert shell.slurm.calls("scancel") == [first.jobs["merge"]]
    assert queued.rounds() == [0]
    assert read_config(queued.config).cluster.partition is None, "a later resume has the first shape"


def test_a_join_that_is_refused_leaves_the_run_as_it_was(shell: Shell, queued: RunPaths) -> None:
    before = read_launches(queued)
    shell.slurm.refuse("sbatch: error: invalid partition\n", after=2)
    said = shell.run("join", "a", "--partition", "gup")
    assert said.code == 1
    assert "error: sbatch refused the job: sbatch: error: invalid partition" in said.err
    assert read_launches(queued) == before
    assert shell.slurm.calls("scancel") == []
    assert shell.left() == ["a"]


@pytest.mark.parametrize(
    ("squeue", "words"), [("", "is not going on"), ("100|FAILED|None|n1\n101|FAILED|None|n1\n", "it is failed")]
)
def test_what_is_over_cannot_be_joined(shell: Shell, queued: RunPaths, squeue: str, words: str) -> None:
    shell.slurm.show_late(jobs=99)
    shell.slurm.answer("squeue", squeue)
    said = shell.run("join", "a")
    assert said.code == 2
    assert words in said.message
    assert "hpcjobs resume a" in said.message
    assert len(read_launches(queued)) == 1


def test_waiting_for_a_slurm_that_does_not_answer_has_an_end(
    shell: Shell, queued: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpcjobs.commands import wait

    monkeypatch.setattr(wait, "_UNKNOWN_SECONDS", 0.2)
    shell.slurm.fail("squeue", DOWN)
    seen: list[str] = []
    with pytest.raises(LaunchError, match=r"Unable to contact.*next: scontrol ping"):
        wait.wait(queued, lambda status: seen.append(status.state))
    assert set(seen) == {"unknown"}
