"""The states that a cluster can be brought into, and what squeue says in a user's shell and at a site with notices."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import pytest

from hpcjobs.run_folder.paths import RunPaths
from tests.job_states import launch_with, row_of, rows
from tests.runs import plan_run
from tests.slurm.site import DUMMY, Site

# State -> options of sbatch, and what brings the job, JOB, into it. The others of squeue(1) need power saving, cgroups,
# burst buffers or a federation, or last for a moment.
WAYS = {
    "RUNNING": ("--nodelist=node1", ""),
    "SUSPENDED": ("--nodelist=node1", "scontrol suspend JOB"),
    "STOPPED": ("--nodelist=node1", "scancel --signal=STOP JOB"),
    "SPECIAL_EXIT": ("--nodelist=node1", "scontrol requeuehold State=SpecialExit JOB"),
    "CANCELLED": ("--hold", "scancel JOB"),
    "FAILED": ("--nodelist=node1", "scancel --batch --signal=KILL JOB"),
    "TIMEOUT": ("--nodelist=node1", "scontrol update jobid=JOB endtime=now+1"),
    "DEADLINE": ("--nodelist=node1 --exclusive", "scontrol update jobid=JOB deadline=now+1"),
    "NODE_FAIL": ("--nodelist=node2 --no-requeue", "scontrol update nodename=node2 state=down reason=test"),
    "RESV_DEL_HOLD": (
        "--reservation=short --begin=now+1hour",
        "scontrol update reservationname=short starttime=now+1 endtime=now+3 flags=ignore_jobs",
    ),
}
_DATA = ("--data", "unified", "--max-samples", "40")
LONG = (*_DATA, "--set", "model.dummy_delay=0.7", "--set", "run.auto_resume=0", *DUMMY)


def queue(site: Site, options: str, *more: str) -> str:
    """Queue a job that sleeps; its id."""
    where = ("--parsable", "--output=/dev/null", "--time=60", *options.split(), *more)
    return site.run("sbatch", *where, "--wrap", "sleep 600").stdout.strip()


def row(site: Site, state: str, folder: Path, job: str) -> str:
    """What becomes of a run with this job."""
    paths = RunPaths(shutil.copytree(site.folder / "planned", folder))
    with mock.patch.dict(os.environ, site.env, clear=True):
        launch_with(paths, work=job)
        return row_of(state, paths, job)


def test_the_states_that_a_cluster_can_be_brought_into(site: Site) -> None:
    plan_run(site.folder / "planned", 3)
    when = ("starttime=now+2days", "duration=10", "users=root")
    site.run("scontrol", "create", "reservation", "reservationname=short", "nodes=node2", *when)
    jobs = {state: queue(site, options) for state, (options, _) in WAYS.items()}
    for state in WAYS.keys() - {"CANCELLED", "DEADLINE", "RESV_DEL_HOLD"}:
        site.cluster.wait_job(jobs[state], "RUNNING")
    for state, (_, way) in WAYS.items():
        if way:
            site.run(*way.replace("JOB", jobs[state]).split())
    seen = {}
    for state, job in jobs.items():
        reached = functools.partial(_is_in, site, job, state)
        site.until(state, reached, 90)
        seen[state] = row(site, state, site.folder / state, job)
    assert seen == {state: rows()[state] for state in WAYS}


def _is_in(site: Site, job: str, state: str) -> bool:
    return shown(site, job).partition("|")[0] == state


def shown(site: Site, job: str) -> str:
    """State and reason, as squeue has them."""
    return site.run("squeue", "--noheader", "--states=all", "--format=%T|%r", f"--jobs={job}").stdout.strip()


def test_a_job_that_is_requeued_and_held_is_said_to_need_its_release(site: Site) -> None:
    """REQUEUE_HOLD lasts for as long as the job ends; then it is PENDING, for a reason that is not in squeue(1)."""
    plan_run(site.folder / "planned", 3)
    job = queue(site, "")
    site.cluster.wait_job(job, "RUNNING")
    site.run("scontrol", "requeuehold", job)
    site.until("the hold", lambda: shown(site, job) == "PENDING|job requeued in held state")
    said = row(site, "PENDING", site.folder / "held", job)
    assert "will not start by itself (job requeued in held state): next: scontrol release JOB" in said
    assert said.endswith("| refused: still going |")


def test_what_was_preempted_for_good_is_over_and_its_rest_is_resumed(site: Site) -> None:
    """Case 06: PREEMPTED is an end, unless the job is requeued."""
    how = ("--nodes", "2", "--gpus", "0", "--exclusive", "--no-requeue")
    site.hpcjobs("submit", "eval", "--name", "p", *how, *LONG)
    site.until("samples", lambda: site.look("p").done >= 2)
    urgent = ("--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null")
    site.run("sbatch", *urgent, "--wrap", "sleep 1")
    site.until("the preemption", lambda: site.look("p").jobs["work"].state == "PREEMPTED")
    site.until("the merge", lambda: site.look("p").over and not site.look("p").going)
    status = site.status("p")
    assert status["state"] == "incomplete"
    assert any("had to give its nodes to another job, and is not requeued" in note for note in status["notes"])
    done = status["done"]
    assert 2 <= done < 40
    site.hpcjobs("resume", "p", "--nodes", "1", "--ntasks-per-node", "4", "--gpus", "0", "--wait")
    assert site.metrics("p")["complete"]
    assert site.metrics("p")["counts"]["duplicates"] == 0


def hpcjobs(site: Site, more: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """The command in an environment with more in it."""
    command = [sys.executable, "-m", "hpcjobs", *words]
    return subprocess.run(
        command, env=site.env | dict(more), cwd=site.folder, capture_output=True, text=True, timeout=120, check=False
    )


def before_path(site: Site, programs: Mapping[str, str]) -> dict[str, str]:
    """PATH with these shell programs first."""
    folder = site.folder / "wrap"
    folder.mkdir()
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{site.env['PATH']}"}


def test_filters_in_the_users_shell_hide_no_job_where_there_is_no_accounting(site: Site) -> None:
    """Case 12."""
    site.hpcjobs("submit", "eval", "--name", "h", "--nodes", "1", "--gpus", "0", "--sbatch", "hold", *LONG)
    shell = before_path(site, {"sacct": 'echo "Slurm accounting storage is disabled" >&2; exit 1'})
    shell |= {
        "SQUEUE_PARTITION": "urgent", "SQUEUE_STATES": "R", "SQUEUE_USERS": "nobody", "SQUEUE_FORMAT": "%i",
        "SQUEUE_ACCOUNT": "none", "SQUEUE_QOS": "none", "SCANCEL_PARTITION": "urgent", "SLURM_TIME_FORMAT": "relative",
    }  # fmt: skip
    said = hpcjobs(site, shell, "status", "h")
    assert "pending" in said.stdout, said.stderr
    assert "(JobHeldUser)" in said.stdout
    again = hpcjobs(site, shell, "resume", "h", "--yes")
    assert again.returncode == 2
    assert "is still going" in again.stderr
    assert len(site.run("squeue", "--noheader", "--format=%A").stdout.split()) == 2, "the ranks' job and the merge"
    assert hpcjobs(site, shell, "cancel", "h").returncode == 0
    site.until("the end", lambda: site.look("h").state == "cancelled")


def test_notices_of_the_site_among_the_lines_are_passed_over(site: Site) -> None:
    """Case 15."""
    real = {name: site.run("which", name).stdout.strip() for name in ("squeue", "sacct", "sbatch", "scancel")}
    notice = 'echo "NOTICE: maintenance | on | Monday | 8 | h"; echo; echo "---- 42 jobs waiting ----"'
    site_wide = before_path(site, {name: f'{notice}\nexec {path} "$@"' for name, path in real.items()})
    how = ("--nodes", "1", "--gpus", "0", "--set", "model.dummy_delay=0", "--wait")
    submitted = hpcjobs(site, site_wide, "submit", "eval", "--name", "n", "--yes", *LONG, *how)
    assert submitted.returncode == 0, submitted.stderr
    for words in (("status", "n"), ("runs",)):
        said = hpcjobs(site, site_wide, *words)
        assert said.returncode == 0, said.stderr
        assert "complete" in said.stdout


def test_defaults_of_the_users_shell_reach_the_jobs(site: Site) -> None:
    """Cases 10, 11 and 14."""
    program = 'import os\nprint("ENVCHECK", *(os.environ.get(name) for name in ("MYVAR", "RANK")), flush=True)\n'
    (site.folder / "envprog.py").write_text(program)
    shell = {"SBATCH_PARTITION": "urgent", "SBATCH_EXPORT": "NONE"}
    how = ("--nodes", "1", "--ntasks-per-node", "2", "--set", 'cluster.env={MYVAR: "1"}', "--yes", "--wait")
    done = hpcjobs(site, shell, "submit", "script", "--executor", "slurm", "--name", "e", *how, "--", "envprog.py")
    assert done.returncode == 0, done.stderr
    assert 'shell   SBATCH_PARTITION: cluster.partition = "urgent"' in done.stderr
    logs = "".join(path.read_text() for path in (site.folder / "runs/e/logs").glob("*_log.out"))
    assert {line for line in logs.splitlines() if line.startswith("ENVCHECK")} == {"ENVCHECK 1 0", "ENVCHECK 1 1"}
    job = json.loads((site.folder / "runs/e/submission.json").read_text())["launches"][0]["jobs"]["work"]
    assert "Partition=urgent" in site.run("scontrol", "show", "job", job).stdout
    gres = ("--nodes", "1", "--gpus", "2", "--set", "cluster.gpu_flag=gres", "--set", "model.dummy_delay=0", "--wait")
    done = hpcjobs(site, {}, "submit", "eval", "--executor", "slurm", "--name", "g", "--yes", *DUMMY, *gres)
    assert done.returncode == 0, done.stderr
    scripts = [path.read_text() for path in (site.folder / "runs/g/logs").glob("*_submission.sh")]
    assert sum("#SBATCH --gres=gpu:2\n" in one for one in scripts) == 1, "of the ranks, not of the merge"


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (("--nodes", "3"), "cluster.nodes"), (("--partition", "small", "--nodes", "2"), "cluster.nodes"),
        (("--partition", "small", "--time", "60"), "cluster.time"), (("--gpus-per-node", "9"), "gpus"),
        (("--cpus-per-task", "99"), "cpus_per_task"), (("--mem", "900G"), "mem"),
        (("--partition", "nope"), "cluster.partition"),
    ],
)  # fmt: skip
def test_a_shape_that_can_never_start_is_refused_when_planning(site: Site, shape: tuple[str, ...], said: str) -> None:
    """Slurm would queue most of them, and they would wait for ever."""
    for how in ("--dry-run", "--yes"):
        told = site.hpcjobs("submit", "eval", "--executor", "slurm", "--name", "n", *DUMMY, *shape, how, code=2)
        assert "Slurm can never start" in told
        assert said in told
    assert not (site.folder / "runs/n").exists()
    assert site.run("squeue", "--noheader").stdout == ""


def test_nor_is_it_resumed_or_joined(site: Site) -> None:
    site.hpcjobs("submit", "eval", "--executor", "slurm", "--name", "r", "--yes", *LONG)
    for verb in ("join", "resume"):
        site.until("ranks", lambda: site.look("r").done > 0)
        if verb == "resume":
            site.hpcjobs("cancel", "r")
            site.until("the end", lambda: not site.look("r").going)
        assert "Slurm can never start 7 nodes" in site.hpcjobs(verb, "r", "--nodes", "7", code=2)
    assert len(json.loads((site.folder / "runs/r/submission.json").read_text())["launches"]) == 1
    site.hpcjobs("resume", "r", "--wait")


def test_the_merge_asks_for_no_more_time_than_its_partition_allows(site: Site) -> None:
    how = ("--partition", "small", "--time", "5", "--yes", "--wait")
    site.hpcjobs("submit", "eval", "--executor", "slurm", "--name", "m", *DUMMY, *how)
    assert json.loads((site.folder / "runs/m/metrics.json").read_text())["complete"]
