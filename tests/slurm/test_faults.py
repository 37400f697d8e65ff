"""Nothing lost, whatever dies: the rows of the fault table that need a real Slurm, with real signals on real ranks."""

from __future__ import annotations

import getpass
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.run_folder.heartbeat import Vitals, read_heartbeats
from hpcjobs.run_folder.journal.journal import read_journal
from hpcjobs.run_folder.journal.record import Record
from tests.runs import process_state
from tests.slurm.cluster import temporary_cluster
from tests.slurm.site import DUMMY, Site

FOUR = ("--nodes", "2", "--ntasks-per-node", "2", "--gpus", "0")


def slow(rows: int, delay: float, *more: str) -> tuple[str, ...]:
    """A run of `rows` samples of `delay` seconds each."""
    data = ("--data", "unified", "--max-samples", str(rows))
    return (*data, "--set", f"model.dummy_delay={delay}", *DUMMY, *more)


def records(site: Site, name: str) -> list[Record]:
    """What all ranks have written, accepted or not."""
    return [record for path in site.paths(name).journals() for record in read_journal(path)]


def vitals(site: Site, name: str, rank: int) -> Vitals:
    """The newest heartbeat of a rank."""
    return [v for v in read_heartbeats(site.paths(name).heartbeats) if v.rank == rank][-1]


def until_done(site: Site, name: str, samples: int) -> None:
    site.until(f"{samples} samples", lambda: site.look(name).done >= samples)


def until_complete(site: Site, name: str, timeout: float = 180.0) -> dict[str, Any]:
    site.until("completeness", lambda: site.look(name).state == "complete", timeout)
    return site.status(name)


def right(site: Site, name: str, rows: int) -> None:
    """Every sample once, with the answer that it must have."""
    found = site.rows(name)
    assert [row["index"] for row in found] == list(range(rows))
    assert site.metrics(name)["counts"]["duplicates"] == 0
    plain = {record.index: record.completion for record in records(site, name)}
    assert [row["completion"] for row in found] == [plain[index] for index in range(rows)]


def launches(site: Site, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(site.paths(name).submission.read_text())["launches"]
    return found


@pytest.mark.parametrize(("killed", "whole"), [([0], False), ([1, 2, 3], False), ([0], True)])
def test_killed_ranks_cost_what_they_had_in_flight(site: Site, killed: list[int], whole: bool) -> None:
    """SIGKILL of rank 0, of all but one, and of rank 0 together with its guard."""
    site.hpcjobs("submit", "eval", *FOUR, "--name", "k", *slow(300, 0.1))
    until_done(site, "k", 40)
    for rank in killed:
        pid = vitals(site, "k", rank).identity["pid"]
        for victim in [parent_of(pid), pid] if whole else [pid]:
            os.kill(victim, signal.SIGKILL)
    status = until_complete(site, "k")
    right(site, "k", 300)
    assert len(records(site, "k")) == 300, "a finished sample was run again"
    assert len(launches(site, "k")) == 1, "it was submitted again"
    for rank in killed:
        note = next(note for note in status["notes"] if note.startswith(f"rank {rank} of"))
        assert f"on {vitals(site, 'k', rank).host} is dead" in note
        assert ("Killed" if whole else "SIGKILL") in note
    assert "is dead" in site.hpcjobs("status", "k")


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_dead_node_costs_nothing_that_was_finished(site: Site) -> None:
    site.hpcjobs("submit", "eval", *FOUR, "--name", "n", *slow(300, 0.1))
    until_done(site, "n", 60)
    site.cluster.kill_node("node2")
    until_complete(site, "n")
    right(site, "n", 300)
    assert len(records(site, "n")) == 300
    assert {v.host for v in read_heartbeats(site.paths("n").heartbeats) if v.state == "done"} == {"node1"}
    assert len(launches(site, "n")) == 1


def test_a_stopped_rank_that_wakes_up_is_not_believed_twice(site: Site) -> None:
    site.hpcjobs("submit", "eval", *FOUR, "--name", "s", *slow(200, 0.1, "--set", "run.lease_timeout=6"))
    until_done(site, "s", 40)
    pid = vitals(site, "s", 1).identity["pid"]
    os.kill(pid, signal.SIGSTOP)
    site.until("the stop", lambda: process_state(pid) == "T")
    site.until("all samples, without it", lambda: site.look("s").done == 200)
    assert any("rank 1" in note and "silent" in note for note in site.status("s")["notes"])
    os.kill(pid, signal.SIGCONT)
    until_complete(site, "s")
    right(site, "s", 200)
    assert vitals(site, "s", 1).state == "done"


def test_a_preempted_job_drains_and_goes_on_where_it_was(site: Site) -> None:
    site.hpcjobs("submit", "eval", *FOUR, "--name", "p", *slow(300, 0.1))
    until_done(site, "p", 60)
    site.run("sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap", "sleep 1")
    site.until("the end of the first attempt", lambda: all(v.ended_at for v in first_attempt(site, "p")))
    assert {v.state for v in first_attempt(site, "p")} == {"drained"}
    assert all("SIGTERM" in (v.ended or "") or "SIGTERM" in site.hpcjobs("logs", "p") for v in first_attempt(site, "p"))
    until_complete(site, "p")
    right(site, "p", 300)
    assert len(records(site, "p")) == 300, "a finished sample was run again"
    assert {record.attempt.split(".")[1] for record in records(site, "p")} == {"0", "1"}


def first_attempt(site: Site, name: str) -> list[Vitals]:
    return [v for v in read_heartbeats(site.paths(name).heartbeats) if v.attempt.split(".")[1] == "0"]


def test_a_job_out_of_time_drains_and_chains_itself(site: Site) -> None:
    """More work than fits into a minute, with no hand on it, and no sample is run twice."""
    site.hpcjobs(
        "submit", "eval", "--nodes", "2", "--gpus", "2", "--name", "t", *slow(80, 2.0, "--time", "1"), "--wait"
    )
    starts = launches(site, "t")
    assert [start["automatic"] for start in starts] == [False] + [True] * (len(starts) - 1)
    assert len(starts) >= 2
    right(site, "t", 80)
    assert len(records(site, "t")) == 80
    states = {site.cluster.sacct(start["jobs"]["work"])[0]["State"] for start in starts}
    assert states == {"COMPLETED"}, "Slurm had to end a job"


def test_cancel_then_another_shape_then_one_more_node(site: Site) -> None:
    site.hpcjobs("submit", "eval", *FOUR, "--name", "c", *slow(400, 0.15))
    until_done(site, "c", 130)
    site.hpcjobs("cancel", "c")
    site.until("the end", lambda: site.look("c").state == "cancelled")
    done = len(records(site, "c"))
    assert "not going on" in site.hpcjobs("join", "c", "--nodes", "1", code=2)
    site.hpcjobs("resume", "c", "--nodes", "1", "--ntasks-per-node", "3", "--gpus", "0")
    until_done(site, "c", done + 20)
    said = site.hpcjobs("join", "c", "--nodes", "1", "--ntasks-per-node", "2")
    assert "join    1 node x 2 tasks = 2 ranks" in said
    until_complete(site, "c")
    right(site, "c", 400)
    assert len(records(site, "c")) == 400
    resumed, joined = launches(site, "c")[1:]
    assert joined["joined"]
    assert any(record.attempt.startswith(f"{joined['jobs']['join']}.") for record in records(site, "c"))
    merge = site.cluster.sacct(resumed["jobs"]["merge"])[0]["State"]
    assert merge.startswith("CANCELLED"), "two merge jobs would judge one run"


def test_an_array_of_single_node_workers(site: Site) -> None:
    site.hpcjobs(
        "submit",
        "eval",
        "--array",
        "4",
        "--ntasks-per-node",
        "2",
        "--gpus",
        "0",
        "--name",
        "y",
        *slow(200, 0.1),
        "--wait",
    )
    right(site, "y", 200)
    assert len(records(site, "y")) == 200
    job = site.jobs("y")["work"]
    assert {record.attempt.split(".")[0] for record in records(site, "y")} == {f"{job}_{worker}" for worker in range(4)}
    assert site.status("y")["jobs"]["work"]["state"] == "COMPLETED"


def shim(folder: Path, name: str, text: str) -> dict[str, str]:
    """A program before Slurm's own on PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"}


# The question whether the job could start goes through.
ASKED = '[ "$1" = --test-only ] && exec {real} "$@"; '


@pytest.mark.parametrize(
    ("name", "words"), [("i1", ""), ("i2", "sbatch: error: Batch job submission failed: Socket timed out on send/recv")]
)
def test_a_lost_reply_of_sbatch_makes_one_job(site: Site, tmp_path: Path, name: str, words: str) -> None:
    real = site.run("which", "sbatch").stdout.strip()
    lost = f'{ASKED.format(real=real)}{real} "$@" >/dev/null; echo "{words}" >&2; exit 1'
    env = site.env | shim(tmp_path / "shims", "sbatch", lost)
    command = [sys.executable, "-m", "hpcjobs", "submit", "eval", *FOUR, "--name", name, *slow(50, 0.0)]
    done = subprocess.run(command, env=env, cwd=site.folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    until_complete(site, name)
    right(site, name, 50)
    queued = site.run(
        "squeue", "--noheader", "--states=all", "--format=%A", f"--name={name},{name}.merge"
    ).stdout.split()
    assert sorted(queued) == sorted(site.jobs(name).values())


def test_a_submit_that_was_killed_behind_sbatch_is_found_again(site: Site, tmp_path: Path) -> None:
    real = site.run("which", "sbatch").stdout.strip()
    killed = f'{ASKED.format(real=real)}{real} "$@" >/dev/null; kill -9 $PPID'
    env = site.env | shim(tmp_path / "shims", "sbatch", killed)
    command = [sys.executable, "-m", "hpcjobs", "submit", "eval", *FOUR, "--name", "f", *slow(50, 0.0)]
    done = subprocess.run(command, env=env, cwd=site.folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    assert launches(site, "f")[0]["jobs"] == {}
    assert "work" in site.status("f")["jobs"]
    site.until("the end of the job that nobody heard of", lambda: site.look("f").done == 50)
    site.hpcjobs("merge", "f")
    right(site, "f", 50)


def test_an_idle_gpu_fails_the_run_unless_it_is_allowed(site: Site) -> None:
    script = site.folder / "by_hand.sh"
    text = '#!/bin/bash\nsrun --ntasks=1 --nodes=1 python -m hpcjobs.worker "$1"\npython -m hpcjobs merge "$1"\n'
    script.write_text(text)
    site.hpcjobs("submit", "eval", "--nodes", "1", "--gpus", "1", "--name", "idle", "--plan-only", *slow(20, 0.0))
    where = ("--nodes=2", "--ntasks=2", "--gpus-per-node=2", "--output=idle.out", "--wait")
    run = str(site.paths("idle").root)
    site.run("sbatch", *where, str(script), run, code=None)
    said = site.hpcjobs("logs", "idle", "--errors")
    assert "1 of 2 allocated nodes have no rank" in said
    assert "1 of 2 GPUs allocated on node1 have no rank" in said
    assert "cluster.allow_idle" in said
    assert records(site, "idle") == []
    config = site.paths("idle").config
    config.write_text(config.read_text().replace("allow_idle: false", "allow_idle: true"))
    site.run("sbatch", *where, str(script), run, code=0)
    assert len(site.rows("idle")) == 20


def test_without_accounting_and_for_a_minute_without_a_controller(site: Site) -> None:
    site.cluster.stop_dbd()
    site.hpcjobs("submit", "eval", *FOUR, "--name", "d", *slow(400, 0.3))
    until_done(site, "d", 20)
    site.cluster.stop_ctld()
    status = site.status("d")
    assert status["state"] == "running"
    assert any("the state of the jobs is not known" in note for note in status["notes"])
    command = [sys.executable, "-m", "hpcjobs", "submit", "eval", "--name", "late", *FOUR, *slow(10, 0.0)]
    with subprocess.Popen(command, env=site.env, cwd=site.folder, stderr=subprocess.PIPE, text=True) as late:
        site.until("all samples", lambda: site.look("d").done == 400, timeout=120)
        site.cluster.start_ctld()
        said = late.communicate(timeout=120)[1]
    assert late.returncode in (0, 1), said
    assert late.returncode == 0 or "Unable to contact slurm controller" in said or "does not answer" in said
    until_complete(site, "d")
    right(site, "d", 400)
    assert site.hpcjobs("merge", "d")
    assert "complete" in site.hpcjobs("status", "d")


def test_a_requeue_after_some_ranks_have_finished(site: Site) -> None:
    """Each rank has chunks of its own, and rank 3 fewer: what it finished is no excuse for the next attempt."""
    own = ("--set", "run.sharding=static", "--set", "run.chunk_size=1")
    site.hpcjobs("submit", "eval", *FOUR, "--name", "q", *slow(7, 4.0, *own))
    site.until("the end of rank 3", lambda: any(v.rank == 3 and v.state == "done" for v in first_attempt(site, "q")))
    assert site.status("q")["done"] < 7
    site.run("scontrol", "requeue", site.jobs("q")["work"])
    until_complete(site, "q")
    right(site, "q", 7)
    assert len(records(site, "q")) == 7
    assert sorted(path.name.split(".")[1] for path in site.paths("q").journals()) == ["0"] * 4 + ["1"] * 4


def test_journals_that_were_deleted_are_missing_and_run_again(site: Site) -> None:
    site.hpcjobs("submit", "eval", *FOUR, "--name", "m", *slow(120, 0.1))
    site.run("scancel", site.jobs("m")["merge"])
    site.cluster.wait_job(site.jobs("m")["work"], "COMPLETED")
    [journal] = [path for path in site.paths("m").journals() if path.stem.endswith("-2")]
    gone = {record.index for record in read_journal(journal)}
    assert gone
    journal.unlink()
    site.hpcjobs("merge", "m", code=3)
    missing = [json.loads(line) for line in site.paths("m").missing.read_text().splitlines()]
    assert {line["index"] for line in missing} == gone
    assert {line["reason"] for line in missing} == {f"journal {journal.name} is gone"}
    kept = len(records(site, "m"))
    site.hpcjobs("resume", "m", "--nodes", "1", "--ntasks-per-node", "1", "--wait")
    right(site, "m", 120)
    assert len(records(site, "m")) == kept + len(gone) == 120


def test_an_array_above_the_clusters_limit_is_split(tmp_path: Path) -> None:
    with temporary_cluster(nodes=1, gpus=0, settings={"MaxArraySize": "4"}) as small:
        site = Site(small, tmp_path)
        site.hpcjobs("submit", "eval", "--array", "6", "--gpus", "0", "--name", "a", *slow(60, 0.1), "--wait")
        jobs = site.jobs("a")
        right(site, "a", 60)
        elements = {record.attempt.split(".")[0] for record in records(site, "a")}
        states = {kind: state["state"] for kind, state in site.status("a")["jobs"].items()}
    assert jobs.keys() == {"work", "work2", "merge"}
    assert {element.split("_")[0] for element in elements} == {jobs["work"], jobs["work2"]}
    assert {element.split("_")[1] for element in elements} <= {"0", "1", "2", "3"}
    assert states == dict.fromkeys(jobs, "COMPLETED")


def test_a_submit_limit_leaves_the_workers_that_were_taken(tmp_path: Path) -> None:
    """Each element counts: the second array is refused, and four workers do the work of seven."""
    limits = {"MaxArraySize": "4", "AccountingStorageEnforce": "limits"}
    with temporary_cluster(nodes=1, gpus=0, settings=limits) as small:
        site = Site(small, tmp_path)
        site.run("sacctmgr", "--immediate", "add", "account", "lab")
        site.run("sacctmgr", "--immediate", "add", "user", getpass.getuser(), "account=lab", "maxsubmitjobs=6")
        how = ("--account", "lab", "--array", "7", "--gpus", "0", "--name", "a", "--wait")
        said = site.hpcjobs("submit", "eval", *how, *slow(60, 0.1))
        assert "AssocMaxSubmitJobLimit" in said
        assert "the workers that were taken do all the work" in said
        right(site, "a", 60)
        assert site.jobs("a").keys() == {"work", "merge"}
