"""submit eval on a real cluster: the straight line, and what users do around it."""

from __future__ import annotations

import contextlib
import json
import socket
import sys

import pytest

from hpcjobs.run_folder.heartbeat import read_heartbeats
from tests.slurm.site import DUMMY, ROOT, Site


@pytest.mark.model
def test_eight_ranks_of_a_real_model_on_two_nodes(site: Site) -> None:
    for node in ("node1", "node2"):  # what hangs plain torch: the names do not resolve
        with pytest.raises(OSError, match=r".*"):
            socket.getaddrinfo(node, 80)
    out = site.hpcjobs("submit", "eval", "--nodes", "2", "--gpus", "8", "--name", "eight", "--wait")
    assert "2 nodes x 4 GPUs = 8 ranks" in out
    assert len(site.paths("eight").journals()) == 8
    metrics = site.metrics("eight")
    assert metrics["complete"] is True
    assert metrics["metrics"]["exact_match"]["value"] > 0.8
    rows = site.rows("eight")
    assert [row["index"] for row in rows] == list(range(50))
    assert site.paths("eight").report.exists()
    jobs = site.jobs("eight")
    work, merge = site.cluster.sacct(jobs["work"])[0], site.cluster.sacct(jobs["merge"])[0]
    assert (work["State"], merge["State"]) == ("COMPLETED", "COMPLETED")
    assert work["NNodes"] == "2"
    assert (
        f"afterany:{jobs['work']}"
        in json.loads(site.paths("eight").submission.read_text())["launches"][0]["scripts"]["merge"]
    )
    said = site.hpcjobs("logs", "eight")
    assert said.count("no GPU answers") == 1


def test_status_and_logs_of_a_running_job_then_cancel_and_resume_on_another_shape(site: Site) -> None:
    slow = ("--data", "unified", "--set", "model.dummy_delay=0.1", *DUMMY)
    site.hpcjobs("submit", "eval", "--nodes", "2", "--ntasks-per-node", "2", "--gpus", "0", "--name", "r", *slow)
    site.until("some samples", lambda: site.look("r").done >= 60)
    status = site.status("r")
    assert status["state"] == "running"
    assert len(status["ranks"]) == 4
    assert status["rate"] > 0
    assert {rank["host"] for rank in status["ranks"]} == {"node1", "node2"}
    assert "rank 3 of 4" in site.hpcjobs("logs", "r", "--rank", "3")
    assert "still going" in site.hpcjobs("resume", "r", code=2)
    assert "job" in site.hpcjobs("cancel", "r")
    site.cluster.wait_job(site.jobs("r")["work"], "CANCELLED", "COMPLETED", "FAILED")
    assert "incomplete" in site.hpcjobs("merge", "r", code=3)
    merged = site.metrics("r")
    assert merged["complete"] is False
    finished = merged["counts"]["accepted"]
    assert 60 <= finished < 600
    site.hpcjobs(
        "resume", "r", "--nodes", "1", "--ntasks-per-node", "3", "--set-nothing", code=2
    )  # a typo starts nothing
    site.hpcjobs("resume", "r", "--nodes", "1", "--ntasks-per-node", "3", "--wait")
    assert site.metrics("r")["complete"] is True
    assert len(site.rows("r")) == 600
    again = sum(v.samples for v in read_heartbeats(site.paths("r").heartbeats) if v.world_size == 3)
    assert again == 600 - finished  # nothing that was finished was run again


def test_the_merge_runs_also_when_the_work_never_did(site: Site) -> None:
    with _busy(site):
        site.hpcjobs("submit", "eval", "--nodes", "2", "--ntasks-per-node", "8", "--gpus", "0", "--name", "p", *DUMMY)
        assert site.status("p")["state"] == "pending"
        assert site.status("p")["jobs"]["work"]["reason"]
        site.run("scancel", site.jobs("p")["work"])
    site.until("the merge's word", lambda: site.look("p").state == "incomplete")
    assert site.metrics("p")["counts"]["missing"] == 50
    assert "never started" in site.paths("p").missing.read_text()
    site.hpcjobs("resume", "p", "--nodes", "1", "--ntasks-per-node", "1", "--wait")
    assert site.metrics("p")["complete"] is True


@contextlib.contextmanager
def _busy(site: Site):  # type: ignore[no-untyped-def]
    """Hold all nodes, so that what is submitted meanwhile has to wait."""
    done = site.run("sbatch", "--parsable", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap", "sleep 600")
    holder = done.stdout.strip()
    site.cluster.wait_job(holder, "RUNNING")
    try:
        yield
    finally:
        site.run("scancel", holder)


def test_submit_from_inside_a_job_is_not_confused_by_it(site: Site) -> None:
    inside = [
        sys.executable,
        "-m",
        "hpcjobs",
        "submit",
        "eval",
        "--nodes",
        "2",
        "--ntasks-per-node",
        "1",
        "--gpus",
        "0",
    ]
    site.run("srun", "--ntasks=1", "--nodes=1", "--export=ALL,RANK=7,WORLD_SIZE=9", *inside, "--name", "in", *DUMMY)
    site.until("the end", lambda: site.look("in").state == "complete", timeout=90)
    assert {rank["world_size"] for rank in site.status("in")["ranks"]} == {2}


def test_what_slurm_refuses_leaves_nothing_behind(site: Site) -> None:
    said = site.hpcjobs("submit", "eval", "--partition", "nowhere", "--name", "x", *DUMMY, code=2)
    assert "invalid partition" in said.lower()
    assert not site.paths("x").root.exists()
    said = site.hpcjobs("submit", "eval", "--nodes", "2", "--gpus", "10", "--name", "x", *DUMMY, code=2)
    assert "Slurm can never start" in said
    assert not site.paths("x").root.exists()
    said = site.hpcjobs("submit", "eval", "--sbatch", "dependency-typo=1", "--name", "x", *DUMMY, code=1)
    assert "sbatch refused" in said
    assert not site.paths("x").root.exists()
    assert site.run("squeue", "--noheader").stdout == ""


def test_generate_has_answers_and_no_metrics(site: Site) -> None:
    site.hpcjobs(
        "submit",
        "generate",
        "--nodes",
        "2",
        "--ntasks-per-node",
        "1",
        "--gpus",
        "0",
        "--name",
        "g",
        "--wait",
        *DUMMY,
    )
    assert site.metrics("g")["metrics"] == {}
    assert "scores" not in site.rows("g")[0]
    assert len(site.rows("g")) == 50
    assert "exact_match" in site.hpcjobs("score", "g", "--metric", "exact_match", "--target", "{{ answer }}")


def test_join_merge_and_resume_of_jobs_that_get_nothing_of_the_shell(site: Site) -> None:
    shape, slow = ("--nodes", "1", "--ntasks-per-node", "2"), ("--data", "unified", *DUMMY)
    here = f"cluster.env={{PYTHONPATH: {ROOT}}}"  # without the shell's, jobs would import what is installed
    bare = ("--sbatch", "export=NONE", "--set", "model.dummy_delay=2.0", "--set", here)
    site.hpcjobs("submit", "eval", *shape, "--gpus", "0", "--name", "none", *bare, *slow)
    site.until("some samples", lambda: site.look("none").done >= 1)
    site.hpcjobs("join", "none", *shape)
    site.until("the others", lambda: len([rank for rank in site.look("none").ranks if rank.vitals.samples]) == 4)
    site.hpcjobs("cancel", "none")
    site.cluster.wait_job(site.jobs("none")["join"], "CANCELLED", "COMPLETED", "FAILED")
    site.until("the end of all", lambda: not site.look("none").going)
    assert "incomplete" in site.hpcjobs("merge", "none", code=3)
    kept = site.metrics("none")["counts"]["accepted"]
    assert 4 <= kept < 600
    config = site.paths("none").config
    config.write_text(config.read_text().replace("dummy_delay: 2.0", "dummy_delay: 0.0"))
    site.hpcjobs("resume", "none", "--wait")
    metrics = site.metrics("none")
    assert (metrics["complete"], metrics["counts"]["accepted"]) == (True, 600)
    launches = json.loads(site.paths("none").submission.read_text())["launches"]
    for launch in launches:
        work = next(text for kind, text in launch["scripts"].items() if kind != "merge")
        assert "#SBATCH --export=NONE" in work
        assert "--export=ALL" in work, "or srun hands on less than the script has"
