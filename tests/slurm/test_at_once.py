"""Commands at the same moment on a real cluster: the records against what accounting knows."""

from __future__ import annotations

import subprocess
import sys

from hpcjobs.run_folder.submission import read_launches
from tests.slurm.site import DUMMY, Site

LONG = ("--data", "unified", "--max-samples", "300", "--set", "model.dummy_delay=0.5", *DUMMY)


def at_once(site: Site, *commands: tuple[str, ...]) -> list[tuple[int, str]]:
    """(exit code, output) of commands that begin at the same moment."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "hpcjobs", *words], env=site.env, cwd=site.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for words in commands
    ]  # fmt: skip
    told = [process.communicate(timeout=240)[0] for process in started]
    return [(process.returncode, text) for process, text in zip(started, told, strict=True)]


def in_accounting(site: Site) -> set[str]:
    """The jobs of this run that accounting knows, and those that wait, which sacct does not show."""
    accounted = ("sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID", "--name=o,o.merge")
    queued = ("squeue", "--noheader", "--states=all", "--format=%A", "--name=o,o.merge")
    return {job_id for words in (accounted, queued) for job_id in site.run(*words).stdout.split()}


def recorded(site: Site) -> set[str]:
    return {job_id for one in read_launches(site.paths("o")) for job_id in one.jobs.values()}


def test_four_joins_then_resume_beside_join_beside_cancel(site: Site) -> None:
    """Every job that accounting knows is in the records, and `cancel` ends them all."""
    before = in_accounting(site)
    site.hpcjobs("submit", "eval", "--nodes", "1", "--ntasks-per-node", "1", "--gpus", "0", "--name", "o", *LONG)
    site.until("the first sample", lambda: site.look("o").done > 0)
    for code, text in at_once(site, *[("join", "o")] * 4):
        assert code == 0, text
    assert len(read_launches(site.paths("o"))) == 5
    site.until("accounting", lambda: in_accounting(site) - before == recorded(site), 60)
    assert len(recorded(site)) == 10
    site.hpcjobs("cancel", "o")
    site.until("the end", lambda: site.look("o").over and not site.look("o").going)

    told = at_once(site, ("resume", "o"), ("join", "o"), ("cancel", "o"), ("resume", "o"))
    assert all(code == 0 or "hpcjobs" in text for code, text in told), told
    site.until("accounting", lambda: in_accounting(site) - before == recorded(site), 60)
    site.hpcjobs("cancel", "o")
    site.until("the end", lambda: site.look("o").over and not site.look("o").going)
    live = site.run("squeue", "--noheader", "--me", "--states=PENDING,RUNNING", "--format=%A").stdout.split()
    assert not set(live) & (in_accounting(site) - before), "cancel has left a job"
