"""The tests' own cluster: a real Slurm that starts, breaks, recovers and leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, ClusterError, reap_abandoned, temporary_cluster

ROOT = Path(__file__).resolve().parents[2]
TO_BE_KILLED = """
import sys, time
from pathlib import Path
from tests.slurm.cluster import Cluster
cluster = Cluster(Path(sys.argv[1]), nodes=1, gpus=0, cpus=2)
cluster.start()
print("up", flush=True)
time.sleep(600)
"""


def until(what: Callable[[], bool], timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < deadline, "deadline"
        time.sleep(0.05)


def submit(cluster: Cluster, folder: Path, *argv: str) -> str:
    return cluster.run("sbatch", "--parsable", f"--output={folder}/%j.out", *argv).stdout.strip()


def mentions(folder: Path) -> list[int]:
    """The live processes with the folder in command line or environment: not by the cluster's own search."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            text = (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in text and int(proc.name) != os.getpid():
            found.append(int(proc.name))
    return found


def test_two_idle_nodes_with_four_gpus_and_names_that_do_not_resolve(cluster: Cluster) -> None:
    assert cluster.node_states() == {"node1": "idle", "node2": "idle"}
    shown = cluster.run("sinfo", "--noheader", "--Node", "--partition=debug", "--format=%N %c %G").stdout
    assert shown.splitlines() == ["node1 8 gpu:4", "node2 8 gpu:4"]
    assert cluster.run("getent", "hosts", "node1", check=False).returncode != 0


def test_env_has_no_other_slurm(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SBATCH_PARTITION", "other")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/slurm.conf")
    ours = {key: value for key, value in cluster.env.items() if key.startswith(("SLURM", "SBATCH"))}
    assert ours == {"SLURM_CONF": f"{cluster.folder}/etc/slurm.conf"}


def test_srun_gives_eight_tasks_on_two_nodes_their_gpus(cluster: Cluster) -> None:
    script = 'echo "$SLURM_PROCID $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES"'
    layout = ("--nodes=2", "--ntasks-per-node=4", "--gres=gpu:4", "--mem=16G")
    lines = cluster.run("srun", *layout, "bash", "-c", script).stdout.splitlines()
    assert sorted(lines) == [f"{rank} node{rank // 4 + 1} 0,1,2,3" for rank in range(8)]


def test_each_node_takes_eight_tasks(cluster: Cluster) -> None:
    lines = cluster.run("srun", "--nodes=2", "--ntasks=16", "printenv", "SLURMD_NODENAME").stdout.splitlines()
    assert sorted(lines) == ["node1"] * 8 + ["node2"] * 8


def test_sacct_knows_a_finished_job(cluster: Cluster, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path, "--job-name=three", "--wrap=exit 3")
    cluster.wait_job(job, "FAILED")
    fields = ("JobID", "JobName", "State", "ExitCode", "NodeList")
    rows = [(job, "three", "FAILED", "3:0", "node1"), (f"{job}.batch", "batch", "FAILED", "3:0", "node1")]
    until(lambda: [tuple(row[field] for field in fields) for row in cluster.sacct(job)] == rows)


def test_a_killed_node_takes_its_ranks_along_and_comes_back(cluster: Cluster, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path, "--nodes=2", "--ntasks-per-node=1", "--wrap=srun sleep 600")
    until(lambda: all(len(cluster.processes(node)) >= 3 for node in cluster.nodes))  # slurmd, stepd, rank
    survivors = cluster.processes("node1")
    cluster.kill_node("node2")
    assert cluster.processes("node2") == []
    assert all(process.alive for process in survivors)
    cluster.start_node("node2")
    cluster.run("scancel", job)
    cluster.wait_idle()
    ran = cluster.run("srun", "--nodelist=node2", "printenv", "SLURMD_NODENAME").stdout
    assert ran.strip() == "node2"


def test_recover_brings_all_back_and_a_job_outlives_its_controllers(cluster: Cluster, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path, "--wrap=sleep 600")
    cluster.wait_job(job, "RUNNING")
    cluster.stop_ctld()
    cluster.stop_dbd()
    cluster.start_dbd()
    cluster.start_ctld()
    assert cluster.job_state(job) == "RUNNING"
    cluster.kill_node("node2")
    cluster.stop_ctld()
    cluster.recover()
    assert cluster.node_states() == {"node1": "idle", "node2": "idle"}
    assert cluster.job_state(job) == "CANCELLED"


def test_an_urgent_job_requeues_the_one_below(cluster: Cluster, tmp_path: Path) -> None:
    again = 'echo "restart $SLURM_RESTART_COUNT"; test "$SLURM_RESTART_COUNT" = 1 || exec sleep 600'
    low = submit(cluster, tmp_path, "--nodes=2", "--exclusive", "--requeue", "--open-mode=append", f"--wrap={again}")
    cluster.wait_job(low, "RUNNING")
    output = tmp_path / f"{low}.out"
    until(lambda: output.exists() and "restart \n" in output.read_text())
    urgent = submit(cluster, tmp_path, "--nodes=2", "--exclusive", "--partition=urgent", "--wrap=true")
    cluster.wait_job(urgent, "COMPLETED")
    cluster.wait_job(low, "COMPLETED")
    assert output.read_text().splitlines()[-1] == "restart 1"


def test_a_second_cluster_stops_with_all_its_jobs_and_the_first_stays(cluster: Cluster, tmp_path: Path) -> None:
    before = cluster.processes()
    with temporary_cluster(nodes=1, gpus=0, cpus=2) as other:
        assert other.name != cluster.name
        assert set(other.ports.values()).isdisjoint(cluster.ports.values())
        submit(other, tmp_path, "--wrap=setsid sleep 600 & srun sleep 600")
        # slurmctld and its slurmscriptd, slurmdbd, slurmd, two slurmstepd, the script, srun, two sleeps
        until(lambda: len(other.processes()) >= 10)
        assert {process.pid for process in other.processes()} <= set(mentions(other.folder))
        assert not set(other.processes()) & set(cluster.processes())
        other.stop()
        assert mentions(other.folder) == []
        other.stop()
    assert not other.folder.exists()
    assert all(process.alive for process in before)
    assert cluster.run("srun", "echo", "well").stdout == "well\n"


def test_a_start_that_fails_shows_the_log_and_leaves_nothing(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "slurmctld"
    broken.write_text("#!/bin/sh\necho no such luck >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with tempfile.TemporaryDirectory(prefix="hpcslurm-", dir="/tmp") as folder:
        with pytest.raises(ClusterError, match=r"slurmctld ended\n.*slurmctld\.out\nno such luck"):
            Cluster(Path(folder), nodes=1).start()
        assert mentions(Path(folder)) == []


def test_an_unfit_folder_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ClusterError, match=r"thesis\.tex|take a folder right under /tmp"):
        Cluster(tmp_path).start()
    with pytest.raises(ClusterError, match="right under /tmp"):
        Cluster(Path("/tmp") / ("x" * 100)).start()


def test_a_later_run_cleans_up_after_a_killed_one(cluster: Cluster) -> None:
    folder = Path(f"{cluster.folder}-killed")
    argv = [sys.executable, "-c", TO_BE_KILLED, str(folder)]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        assert folder not in reap_abandoned()
        owner.send_signal(signal.SIGKILL)
    assert mentions(folder)
    reap_abandoned()
    until(lambda: not folder.exists() and not mentions(folder))  # a test run beside this one may be at it too
    assert cluster.node_states() == {"node1": "idle", "node2": "idle"}
