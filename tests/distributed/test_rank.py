"""Who a process is, in every launcher's environment."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

import pytest

from hpcjobs.distributed.rank import (
    JobEnd,
    Rank,
    SlurmResources,
    assert_world,
    job_end,
    lone_launch_hint,
    node_gpus,
    refuse_lone_process,
    slurm_job,
    slurm_resources,
)
from hpcjobs.errors import RendezvousError
from hpcjobs.run_folder.process import process_start

# What srun gives the last task of a job of 11 on nodes with 4, 4 and 3 (Slurm 23.02).
SRUN = {
    "SLURM_JOB_ID": "812", "SLURM_STEP_ID": "0", "SLURM_PROCID": "10", "SLURM_NTASKS": "11",
    "SLURM_STEP_NUM_TASKS": "11",
    "SLURM_LOCALID": "2", "SLURM_NODEID": "2", "SLURM_NNODES": "3", "SLURM_TASKS_PER_NODE": "4(x2),3",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2),3", "SLURMD_NODENAME": "n3", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1",
}  # fmt: skip
BATCH = {
    "ENVIRONMENT": "BATCH",
    "SLURM_JOB_ID": "812",
    "SLURM_PROCID": "0",
    "SLURM_NTASKS": "4",
    "SLURM_LOCALID": "0",
}
TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1", "MASTER_ADDR": "n1", "MASTER_PORT": "29500",
}  # fmt: skip
LOCAL = {
    "SUBMITIT_LOCAL_GLOBALID": "1", "SUBMITIT_LOCAL_NTASKS": "3", "SUBMITIT_LOCAL_LOCALID": "1",
    "SUBMITIT_LOCAL_JOB_ID": "77", "SUBMITIT_EXECUTOR": "local",
}  # fmt: skip


def place(rank: Rank) -> tuple[int, int, int, int, int]:
    return rank.rank, rank.world_size, rank.local_rank, rank.local_world_size, rank.node


def test_a_task_of_srun() -> None:
    rank = Rank.from_env(SRUN)
    assert place(rank) == (10, 11, 2, 3, 2)
    assert (rank.launcher, rank.attempt, rank.host, rank.job_id) == ("slurm", "812.0.0", "n3", "812")
    assert rank.launch_address == "10.0.0.1"
    assert rank.master is None
    assert not rank.is_main


@pytest.mark.parametrize(
    ("tasks", "node", "local_world"),
    [
        ("4(x2),3", "0", 4),
        ("4(x2),3", "1", 4),
        ("4(x2),3", "2", 3),
        ("3", "0", 3),
        ("1,2(x3)", "3", 2),
        ("", "0", 5),
        ("?", "0", 5),
    ],
)
def test_tasks_of_a_node_from_slurms_list(tasks: str, node: str, local_world: int) -> None:
    env = SRUN | {
        "SLURM_TASKS_PER_NODE": tasks, "SLURM_NODEID": node, "SLURM_LOCALID": "0", "SLURM_PROCID": "0",
        "SLURM_NTASKS": "11", "SLURM_NNODES": "2",
    }  # fmt: skip
    del env["SLURM_STEP_TASKS_PER_NODE"]
    assert Rank.from_env(env).local_world_size == local_world


def test_a_step_may_be_smaller_than_its_job() -> None:
    env = SRUN | {
        "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "1",
        "SLURM_NODEID": "0",
    }  # fmt: skip
    assert place(Rank.from_env(env)) == (1, 2, 1, 2, 0)


def test_each_start_of_a_job_is_another_attempt() -> None:
    requeued = Rank.from_env(SRUN | {"SLURM_RESTART_COUNT": "2"})
    assert requeued.attempt == "812.2.0"
    assert Rank.from_env(SRUN | {"SLURM_STEP_ID": "1"}).attempt == "812.0.1"
    assert Rank.from_env(SRUN | {"HPCJOBS_ATTEMPT": "mine"}).attempt == "mine"


@pytest.mark.parametrize(
    ("ours", "theirs", "over"),
    [
        ("812.1.0", "812.0.0", True), ("812.10.0", "812.9.3", True), ("812.1.0", "812.1.0", False),
        ("812.1.1", "812.1.0", False), ("812.0.0", "812.1.0", False), ("812.1.0", "811.0.0", False),
        ("812.1.0", "local7", False), ("812.1.0", "812.x.0", False), ("mine", "812.0.0", False),
    ],
)  # fmt: skip
def test_only_a_later_start_of_the_same_job_ends_an_attempt(ours: str, theirs: str, over: bool) -> None:
    assert Rank.from_env(SRUN | {"HPCJOBS_ATTEMPT": ours}).succeeds(theirs) is over


def test_other_launchers_know_of_no_successor() -> None:
    assert not Rank.from_env(LOCAL | {"HPCJOBS_ATTEMPT": "1.2.3"}).succeeds("1.1.3")


def test_submitits_local_executor() -> None:
    rank = Rank.from_env(LOCAL)
    assert place(rank) == (1, 3, 1, 3, 0)
    assert (rank.launcher, rank.attempt, rank.job_id) == ("local", "local77", "77")


def test_torchrun() -> None:
    rank = Rank.from_env(TORCHRUN)
    assert place(rank) == (5, 8, 1, 4, 1)
    assert (rank.launcher, rank.master) == ("torchrun", ("n1", 29500))


def test_torchrun_inside_a_slurm_step_is_the_nearer_launcher() -> None:
    rank = Rank.from_env(SRUN | TORCHRUN)
    assert place(rank) == (5, 8, 1, 4, 1)
    assert (rank.launcher, rank.job_id, rank.host) == ("torchrun", "812", "n3")


def test_accelerate_launch_without_a_run_id() -> None:
    env = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    assert place(Rank.from_env(env)) == (1, 2, 1, 2, 0)


def test_nothing_at_all_is_one_process() -> None:
    rank = Rank.from_env({})
    assert place(rank) == (0, 1, 0, 1, 0)
    assert rank.is_main
    assert rank.launcher == "single"
    assert rank.attempt == f"p{os.getpid()}t{process_start(os.getpid())}"


def test_a_batch_script_is_no_task() -> None:
    assert place(Rank.from_env(BATCH)) == (0, 1, 0, 1, 0)
    with pytest.raises(RendezvousError, match=r"has 4 tasks.*outside of srun.*srun python -m hpcjobs\.worker"):
        refuse_lone_process(BATCH)
    refuse_lone_process(BATCH | {"SLURM_NTASKS": "1"})
    refuse_lone_process(BATCH | {"SLURM_STEP_ID": "0"})
    refuse_lone_process(BATCH | TORCHRUN)
    refuse_lone_process(SRUN)
    refuse_lone_process({})


def test_the_worker_in_a_batch_script_refuses_before_it_does_anything(tmp_path: Any) -> None:
    (tmp_path / "plan.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-m", "hpcjobs.worker", str(tmp_path)], env=os.environ | BATCH, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "4 tasks" in done.stderr
    assert "Traceback" not in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["plan.json"]


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (SRUN | {"SLURM_PROCID": "x"}, "SLURM_PROCID='x' is not a number"),
        (SRUN | {"SLURM_STEP_NUM_TASKS": "", "SLURM_NTASKS": ""}, "SLURM_NTASKS='' is not a number"),
        (SRUN | {"SLURM_PROCID": "11"}, "slurm says rank 11 of 11"),
        (SRUN | {"SLURM_LOCALID": "3"}, "local rank 3 of 3"),
        (SRUN | {"SLURM_PROCID": "-1"}, "rank -1 of 11"),
        (LOCAL | {"SUBMITIT_LOCAL_NTASKS": ""}, "SUBMITIT_LOCAL_NTASKS='' is not a number"),
        (TORCHRUN | {"WORLD_SIZE": "4"}, "torchrun says rank 5 of 4"),
        (TORCHRUN | {"MASTER_PORT": "http"}, "MASTER_PORT='http' is not a number"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "rank 0 of 0"),
    ],
)
def test_an_environment_that_contradicts_itself(env: dict[str, str], words: str) -> None:
    with pytest.raises(RendezvousError, match=words):
        Rank.from_env(env)


def test_what_torch_and_accelerate_are_told() -> None:
    rank = Rank.from_env(SRUN)
    assert rank.exports(("10.0.0.1", 4711), use_cpu=True) == {
        "RANK": "10", "WORLD_SIZE": "11", "LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "3", "ACCELERATE_MACHINE_RANK": "2",
        "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "4711", "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    assert not {"MASTER_ADDR", "ACCELERATE_USE_CPU"} & rank.exports(None, use_cpu=False).keys()
    again = Rank.from_env(rank.exports(("10.0.0.1", 4711), use_cpu=True) | {"TORCHELASTIC_RUN_ID": "x"})
    assert place(again)[:4] == place(rank)[:4]


def test_accelerate_must_see_all_processes() -> None:
    rank = Rank.from_env(SRUN)
    assert_world(rank, 11)
    with pytest.raises(RendezvousError, match=r"accelerate sees 1 process\(es\), slurm started 11"):
        assert_world(rank, 1)


@pytest.mark.parametrize(
    ("env", "asked", "threads"),
    [
        (SRUN, {}, lambda cores: max(1, cores // 3)),
        ({}, {}, lambda cores: cores),
        (SRUN, {"SLURM_CPUS_PER_TASK": "1"}, lambda cores: 1),
        (SRUN, {"SLURM_CPUS_PER_TASK": "100000"}, lambda cores: cores),
        (SRUN, {"SLURM_CPUS_PER_TASK": "0"}, lambda cores: max(1, cores // 3)),
        (SRUN, {"OMP_NUM_THREADS": "77"}, lambda cores: 77),
    ],
)
def test_threads_share_the_nodes_cores(env: dict[str, str], asked: dict[str, str], threads: Any) -> None:
    own = dict(asked)
    Rank.from_env(env).limit_threads(own)
    assert own["OMP_NUM_THREADS"] == str(threads(len(os.sched_getaffinity(0))))


@pytest.mark.parametrize("env", [{}, SRUN])
@pytest.mark.parametrize("asked", [{}, {"OMP_NUM_THREADS": "77"}, {"SLURM_CPUS_PER_TASK": "2"}])
def test_fixed_threads_depend_on_nothing_else(env: dict[str, str], asked: dict[str, str]) -> None:
    own = dict(asked)
    Rank.from_env(env).limit_threads(own, fixed=3)
    assert own["OMP_NUM_THREADS"] == "3"


def test_a_process_is_known_by_when_it_began() -> None:
    assert process_start(os.getpid()) == process_start(os.getpid()) is not None
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert process_start(child.pid) is not None
        child.communicate(b"\n")
    assert process_start(child.pid) is None


# What srun gives the second task of element 7 of an array 5-8 of jobs of two tasks.
ARRAY = SRUN | {
    "SLURM_JOB_ID": "815", "SLURM_ARRAY_JOB_ID": "812", "SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "5",
    "SLURM_ARRAY_TASK_MAX": "8", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_PROCID": "1", "SLURM_NTASKS": "2",
    "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "1", "SLURM_NODEID": "0", "SLURM_NNODES": "1",
    "SLURM_TASKS_PER_NODE": "2", "SLURM_STEP_TASKS_PER_NODE": "2",
}  # fmt: skip


def test_an_element_of_an_array_is_a_world_of_its_own_and_walks_with_the_others() -> None:
    rank = Rank.from_env(ARRAY)
    assert place(rank) == (1, 2, 1, 2, 0)
    assert (rank.worker, rank.workers, rank.in_array) == (2, 4, True)
    assert rank.walk == (5, 8)
    assert (rank.attempt, rank.job_id) == ("812_7.0.0", "815")
    assert Rank.from_env(ARRAY | {"SLURM_RESTART_COUNT": "1"}).attempt == "812_7.1.0"


def test_the_walks_of_all_elements_meet_nowhere() -> None:
    tasks = [(str(task), str(proc)) for task in (5, 6, 7, 8) for proc in (0, 1)]
    ranks = [
        Rank.from_env(ARRAY | {"SLURM_ARRAY_TASK_ID": task, "SLURM_PROCID": proc, "SLURM_LOCALID": proc})
        for task, proc in tasks
    ]
    assert [rank.walk for rank in ranks] == [(place, 8) for place in range(8)]
    assert len({(rank.attempt, rank.rank) for rank in ranks}) == 8


def test_without_an_array_the_walk_is_that_of_the_ranks() -> None:
    rank = Rank.from_env(SRUN)
    assert (rank.walk, rank.in_array, rank.workers) == ((10, 11), False, 1)
    lone = {name: value for name, value in ARRAY.items() if name != "SLURM_ARRAY_TASK_COUNT"}
    assert Rank.from_env(lone | {"SLURM_ARRAY_TASK_MIN": "7"}).walk == (1, 2)


@pytest.mark.parametrize(
    ("theirs", "over"),
    [("812_7.0.0", True), ("812_7.1.0", False), ("812_6.0.0", False), ("812.0.0", False), ("812_70.0.0", False)],
)
def test_a_requeued_element_succeeds_itself_alone(theirs: str, over: bool) -> None:
    assert Rank.from_env(ARRAY | {"SLURM_RESTART_COUNT": "1"}).succeeds(theirs) is over


@pytest.mark.parametrize(
    ("env", "end"),
    [
        ({}, JobEnd(None, 30.0)),
        ({"SLURM_JOB_END_TIME": "1700000000", "HPCJOBS_END_TIME": "5"}, JobEnd(1700000000.0, 30.0)),
        ({"HPCJOBS_END_TIME": "1700000000", "HPCJOBS_KILL_WAIT": "60"}, JobEnd(1700000000.0, 60.0)),
        ({"SLURM_JOB_END_TIME": "", "HPCJOBS_END_TIME": "", "HPCJOBS_KILL_WAIT": ""}, JobEnd(None, 30.0)),
        ({"HPCJOBS_END_TIME": "UNLIMITED", "HPCJOBS_KILL_WAIT": "0"}, JobEnd(None, 0.0)),
    ],
)
def test_when_the_allocation_ends(env: dict[str, str], end: JobEnd) -> None:
    assert job_end(env) == end


STEP = SRUN | {
    "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_STEP_NUM_NODES": "2", "SLURM_JOB_NODELIST": "n[1-3]",
    "SLURM_JOB_NUM_NODES": "3", "SLURM_GPUS_ON_NODE": "4",
}  # fmt: skip


@pytest.mark.parametrize(
    ("env", "given"),
    [
        (STEP, SlurmResources("n[1-3]", "n[1-2]", 3, 2, 4)),
        (STEP | {"SLURM_GPUS_ON_NODE": ""}, SlurmResources("n[1-3]", "n[1-2]", 3, 2, 0)),
        (
            STEP | {"SLURM_JOB_NUM_NODES": "", "SLURM_GPUS_ON_NODE": "a100:4"},
            SlurmResources("n[1-3]", "n[1-2]", 2, 2, 0),
        ),
        (SRUN, None), (TORCHRUN, None), (BATCH | {"SLURM_STEP_NODELIST": "n1"}, None),
    ],
)  # fmt: skip
def test_what_slurm_gave_is_known_inside_a_step_alone(env: dict[str, str], given: SlurmResources | None) -> None:
    assert slurm_resources(env) == given


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, (5, 8, 1, 4, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, (1, 2, 1, 2, 0)),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "0"}, (0, 1, 0, 1, 0)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_NNODES": "2"}, (1, 4, 0, 2, 0)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_NNODES": "9"}, (1, 4, 0, 1, 0)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "4"}, (1, 4, 0, 4, 0)),
        ({"SUBMITIT_LOCAL_GLOBALID": "2", "SUBMITIT_LOCAL_NTASKS": "3"}, (2, 3, 2, 3, 0)),
        ({"RANK": "1"}, (0, 1, 0, 1, 0)), ({"SLURM_PROCID": "1"}, (0, 1, 0, 1, 0)),
    ],
)  # fmt: skip
def test_what_a_launcher_does_not_say_follows_from_what_it_says(env: dict[str, str], expected: tuple[int, ...]) -> None:
    rank = Rank.from_env(env)
    assert place(rank) == expected
    assert (rank.job_id or "0", rank.master, rank.launch_address) == ("0", None, None)
    assert (rank.worker, rank.workers, rank.in_array, rank.host) == (0, 1, False, socket.gethostname())
    assert Rank.from_env(env | {"HPCJOBS_ATTEMPT": "mine"}).attempt == "mine"


def test_attempts_of_launchers_that_name_no_job() -> None:
    assert Rank.from_env({"SLURM_PROCID": "1", "SLURM_NTASKS": "4"}).attempt == "slurm.0.0"
    assert Rank.from_env({"SUBMITIT_LOCAL_GLOBALID": "2", "SUBMITIT_LOCAL_NTASKS": "3"}).attempt == "local0"
    own = f"p{os.getpid()}t{process_start(os.getpid())}"
    assert Rank.from_env({"RANK": "1", "WORLD_SIZE": "2"}).attempt == own
    less = {name: value for name, value in ARRAY.items() if name != "SLURM_ARRAY_TASK_ID"}
    assert Rank.from_env(less | {"SLURM_ARRAY_TASK_MIN": "0"}).attempt == "812_0.0.0"
    assert Rank.from_env(ARRAY | {"SLURM_ARRAY_TASK_COUNT": "0"}).workers == 1


def test_where_the_others_meet_is_what_slurm_or_torch_says() -> None:
    other = {name: value for name, value in SRUN.items() if name != "SLURM_LAUNCH_NODE_IPADDR"}
    assert Rank.from_env(other | {"SLURM_SRUN_COMM_HOST": "10.0.0.9"}).launch_address == "10.0.0.9"
    for lone in ("MASTER_ADDR", "MASTER_PORT"):
        assert Rank.from_env({name: value for name, value in TORCHRUN.items() if name != lone}).master is None


def test_the_job_of_this_process_is_the_whole_array(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    assert slurm_job() is None
    monkeypatch.setenv("SLURM_JOB_ID", "815")
    assert slurm_job() == "815"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "812")
    assert slurm_job() == "812"


def test_accelerate_that_starts_one_process_on_cpus_is_explained() -> None:
    env = {"ACCELERATE_MIXED_PRECISION": "no", "MASTER_PORT": "29500"}
    assert "accelerate launch --multi_gpu --num_processes N" in (lone_launch_hint(env) or "")
    assert lone_launch_hint(env | {"WORLD_SIZE": "2"}) is None
    for name in env:
        assert lone_launch_hint({other: value for other, value in env.items() if other != name}) is None


@pytest.mark.parametrize(("gpus", "count"), [("4", 4), ("", 0), ("a100:4", 0), ("0", 0)])
def test_gpus_of_a_node_are_a_number_or_unknown(gpus: str, count: int) -> None:
    assert node_gpus({"SLURM_GPUS_ON_NODE": gpus}) == count
    assert node_gpus({}) == 0


def test_an_attempt_of_other_parts_is_no_start_of_this_job() -> None:
    rank = Rank.from_env(SRUN | {"HPCJOBS_ATTEMPT": "812.1.0"})
    assert [rank.succeeds(theirs) for theirs in ("812.0", "812.0.0.0", "812", "")] == [False] * 4
    assert not Rank.from_env(SRUN | {"HPCJOBS_ATTEMPT": "812.1"}).succeeds("812.0.0")
    assert not Rank.from_env(TORCHRUN | {"HPCJOBS_ATTEMPT": "812.1.0"}).succeeds("812.0.0")
