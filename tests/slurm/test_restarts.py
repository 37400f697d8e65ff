"""Programs whose ranks, nodes and jobs end before they do: started again, they go on from what they have saved."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.run_folder.heartbeat import read_heartbeats
from hpcjobs.run_folder.process import process_start
from tests.slurm.cluster import Cluster, missing_programs, temporary_cluster
from tests.slurm.site import ROOT, Site

TRAINER = ROOT / "tests" / "programs" / "plain_trainer.py"
HOW = ("--time", "30", "--yes")
WARN = ("--sbatch", "signal=USR1@60")
# What the others may take to end after the first (seconds).
SOON = 30


def submit(site: Site, name: str, steps: int, *more: str) -> None:
    (site.folder / "train.py").write_text(TRAINER.read_text())
    site.hpcjobs("submit", "script", *HOW, *more, "--name", name, "--", "train.py", str(steps), "0.1")


def started(site: Site) -> dict[str, list[dict[str, Any]]]:
    """Attempt -> what each rank of it said when it began."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(site.folder.glob("started-*.json")):
        if text := path.read_text():
            found.setdefault(path.stem.split("-")[1], []).append(json.loads(text))
    return found


def await_attempt(site: Site, number: int, ranks: int, steps: int = 5) -> list[dict[str, Any]]:
    """The ranks of that attempt, which have all trained for some steps."""

    def whole() -> bool:
        now = started(site)
        return len(now) == number and all(len(each) == ranks for each in now.values()) and trained(site) >= steps

    site.until(f"attempt {number}", whole)
    return list(started(site).values())[-1]


def trained(site: Site) -> int:
    """Steps that were saved by the one of two ranks that has saved less."""
    files = list(site.folder.glob("saved-*.json"))
    return min(json.loads(path.read_text())["step"] for path in files) if len(files) == 2 else 0


def losses(folder: Path, rank: int) -> dict[int, float]:
    """The last loss of each step."""
    return dict(json.loads(line) for line in (folder / f"losses-{rank}.jsonl").read_text().splitlines())


def undisturbed(folder: Path, steps: int) -> dict[int, float]:
    """The same training, alone and in one go."""
    folder.mkdir()
    env = {"RANK": "0", "HPCJOBS_ATTEMPT": "alone", "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, str(TRAINER), str(steps), "0"], cwd=folder, env=env, check=True)
    return losses(folder, 0)


def end(site: Site, name: str) -> None:
    site.until("the end", lambda: site.look(name).state.over and not site.look(name).going)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three nodes: one to spare."""
    if missing := missing_programs():
        reason = f"not installed: {', '.join(missing)}; tools/install_slurm.sh installs them"
        (pytest.fail if os.environ.get("HPCJOBS_REQUIRE_SLURM") == "1" else pytest.skip)(reason)
    with temporary_cluster(nodes=3, gpus=1) as started:
        yield started


def test_each_way_to_lose_a_rank_or_a_node_costs_a_restart(site: Site) -> None:
    """Killed, stopped, and gone with its node: the others end soon, the cause is named, a spare takes the place of a
    bad node, and the program goes on from what it has saved.
    """
    submit(site, "r", 500, "--nodes", "2-3", "--gpus-per-node", "1", "--restarts", "3")
    first = await_attempt(site, 1, 2)
    os.kill(first[1]["pid"], signal.SIGKILL)
    assert ended_after(site, first) < SOON
    second = await_attempt(site, 2, 2, trained(site) + 5)
    assert [one["node"] for one in second] == ["node1", "node2"], "once is no reason to leave a node"
    assert all(one["step"] >= 5 for one in second)
    os.kill(second[1]["pid"], signal.SIGSTOP)
    assert ended_after(site, second) < SOON
    third = await_attempt(site, 3, 2, trained(site) + 5)
    assert [one["node"] for one in third] == ["node1", "node3"], "the spare"
    site.cluster.kill_node("node3")
    assert ended_after(site, third) < SOON
    fourth = await_attempt(site, 4, 2, trained(site) + 5)
    assert [one["node"] for one in fourth] == ["node1", "node2"], "bad, but there is no other"
    end(site, "r")
    status = site.look("r")
    assert (status.state, status.first_error) == ("complete", None)
    assert losses(site.folder, 0) == losses(site.folder, 1) == undisturbed(site.folder / "alone", 500)
    told = [str(one) for one in status.attempts]
    assert "rank 1 on node2 (ended with signal SIGKILL): started again: restart 1 of 3" in told[0]
    assert "rank 1 on node2 (" in told[1]
    assert "stopped for" in told[1]
    assert "started again without node2: restart 2 of 3" in told[1]
    assert "rank 1 on node3 (no sign of life for" in told[2]
    assert "started again without node3: restart 3 of 3" in told[2]
    assert len(json.loads(site.paths("r").submission.read_text())["launches"]) == 1, "in one job"


def ended_after(site: Site, ranks: list[dict[str, Any]]) -> float:
    """How long until none of these programs is left (seconds)."""
    began = time.monotonic()
    site.until("the end of all programs", lambda: all(process_start(one["pid"]) is None for one in ranks), 60)
    return time.monotonic() - began


def test_a_node_that_is_gone_without_a_spare_is_named(site: Site) -> None:
    """Ranks on the other node end soon, and GPUs would wait for nothing."""
    submit(site, "g", 2000, "--nodes", "2", "--restarts", "2")
    ranks = await_attempt(site, 1, 2)
    site.cluster.kill_node("node2")
    assert ended_after(site, ranks) < SOON
    end(site, "g")
    status = site.look("g")
    assert status.state == "failed"
    assert [(one.rank, one.host, one.again) for one in status.attempts] == [(1, "node2", False)]
    assert "node2 is gone, and no spare node is left" in " ".join(status.notes)


def test_limits_preemption_and_a_cancel_leave_no_trace_in_the_losses(site: Site) -> None:
    """Warned three times as before a limit, preempted, cancelled and resumed: the losses of the undisturbed run."""
    submit(site, "t", 600, "--ntasks-per-node", "2", *WARN)
    for number in range(1, 4):
        await_attempt(site, number, 2, trained(site) + 5)
        site.run("scancel", "--signal=USR1", site.jobs("t")["work"])
    await_attempt(site, 4, 2, trained(site) + 5)
    urgent = site.run("sbatch", "--parsable", "--partition=urgent", "--nodes=3", "--exclusive", "--wrap=sleep 1").stdout
    await_attempt(site, 5, 2, trained(site) + 5)
    assert site.cluster.sacct(urgent.strip())[0]["State"] == "COMPLETED"
    site.hpcjobs("cancel", "t")
    end(site, "t")
    assert site.look("t").state == "cancelled"
    site.hpcjobs("resume", "t", "--yes")
    end(site, "t")
    assert site.look("t").state == "complete"
    assert len(started(site)) == 6
    assert losses(site.folder, 0) == losses(site.folder, 1) == undisturbed(site.folder / "alone", 600)
    ends = [one.state for one in read_heartbeats(site.paths("t").heartbeats)]
    assert "failed" not in ends


COPY = """
import json, os, sys
names = ("HPCJOBS_INDEX", "HPCJOBS_ARRAY_SIZE", "RANK", "WORLD_SIZE")
index, *rest = [int(os.environ[name]) for name in names]
with open(f"copy-{index}-{rest[1]}", "a") as file:
    file.write(json.dumps(rest) + "\\n")
sys.exit(4 if index == 1 and not os.path.exists("mended") else 0)
"""


def test_copies_in_an_array_fail_alone_and_resume_starts_those(site: Site) -> None:
    """Of two nodes each, with a world of its own."""
    (site.folder / "once.py").write_text(COPY)
    how = ("--array", "3", "--nodes", "2", "--ntasks-per-node", "1", "--name", "a", "--wait")
    said = site.hpcjobs("submit", "script", *HOW, *how, "--", "once.py", code=1)
    assert "copies  1 of 3 failed: 1" in said
    assert "copies  2 of 3 complete: 0, 2" in said
    assert [one["state"] for one in site.status("a")["copies"]] == ["complete", "failed", "complete"]
    (site.folder / "mended").touch()
    assert "1 of 3 have not ended well" in site.hpcjobs("resume", "a", "--wait")
    lines = {path.name: path.read_text().splitlines() for path in sorted(site.folder.glob("copy-*"))}
    assert {name: len(each) for name, each in lines.items()} == {
        f"copy-{index}-{rank}": 2 if index == 1 else 1 for index in range(3) for rank in range(2)
    }
    assert {line for each in lines.values() for line in each} == {"[3, 0, 2]", "[3, 1, 2]"}
    assert site.status("a")["state"] == "complete"
