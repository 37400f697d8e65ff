"""Rank.from_env(): which rank this process is. The only reader of SLURM_*, SUBMITIT_*, RANK...

Slurm, submitit's local executor, `accelerate launch`/torchrun, and a single process all give one frozen `Rank`. The
environment that torch and accelerate read is set from it alone.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import TypedDict

from hpcjobs.errors import RendezvousError
from hpcjobs.run_folder.process import process_start

# Slurm's default for KillWait (slurm.conf(5)).
_KILL_WAIT = 30.0


@dataclass(frozen=True, kw_only=True)
class Rank:
    """One process: `rank` of `world_size`, `local_rank` of `local_world_size` on node number `node`.

    `attempt` names this start of the job: a requeue, a resume and a second job step have others. `restart` counts those
    of this job, by Slurm or as `cluster.restarts` has it, before this one. Each element of a job array is one of
    `workers`, with a world of its own; of an array of programs this one runs number `index` of `copies`.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    node: int
    attempt: str
    launcher: str
    host: str
    job_id: str | None = None
    master: tuple[str, int] | None = None
    launch_address: str | None = None
    worker: int = 0
    workers: int = 1
    in_array: bool = False
    restart: int = 0
    index: int | None = None
    copies: int = 1

    @property
    def walk(self) -> tuple[int, int]:
        """`(place, ranks)` among all ranks that share the chunks: those of all workers of a job array."""
        return self.worker * self.world_size + self.rank, self.workers * self.world_size

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Rank:
        """The rank that `env` (default: this process's environment) describes.

        torchrun inside a Slurm step takes precedence over Slurm. Raises a RendezvousError if the environment is
        inconsistent.
        """
        env = os.environ if env is None else env
        if "TORCHELASTIC_RUN_ID" in env:
            rank = _from_torch(env)
        elif "SLURM_PROCID" in env and "SLURM_NTASKS" in env and not _in_batch_script(env):
            rank = _from_slurm(env)
        elif "SUBMITIT_LOCAL_GLOBALID" in env:
            rank = _from_submitit(env)
        elif {"RANK", "WORLD_SIZE"} <= env.keys():
            rank = _from_torch(env)
        else:
            rank = cls(
                rank=0,
                world_size=1,
                local_rank=0,
                local_world_size=1,
                node=0,
                attempt=env.get("HPCJOBS_ATTEMPT") or _own_attempt(),
                launcher="single",
                host=_host(env),
            )
        _check(rank)
        return rank

    def exports(self, master: tuple[str, int] | None, use_cpu: bool) -> dict[str, str]:
        """The environment that torch.distributed and accelerate read for this rank."""
        values: dict[str, object] = {
            "RANK": self.rank, "WORLD_SIZE": self.world_size, "LOCAL_RANK": self.local_rank,
            "LOCAL_WORLD_SIZE": self.local_world_size,
            # accelerate's name for the number of this machine
            "ACCELERATE_MACHINE_RANK": self.node,
        }  # fmt: skip
        if master:
            values |= {"MASTER_ADDR": master[0], "MASTER_PORT": master[1]}
        if use_cpu:
            values["ACCELERATE_USE_CPU"] = "true"
        return {name: str(value) for name, value in values.items()}

    def limit_threads(self, env: MutableMapping[str, str], fixed: int | None = None) -> None:
        """Divide the node's cores among its ranks (OMP_NUM_THREADS), unless it is set; call before torch is imported.

        `fixed` sets the number whatever cores, world size and environment are: on CPUs the last bits of a sum depend on
        the number of threads.
        """
        if fixed is not None:
            env["OMP_NUM_THREADS"] = str(fixed)
            return
        cores = len(os.sched_getaffinity(0))
        cpus = env.get("SLURM_CPUS_PER_TASK", "")
        share = min(int(cpus), cores) if cpus.isdigit() and int(cpus) else cores // self.local_world_size
        env.setdefault("OMP_NUM_THREADS", str(max(1, share)))

    def succeeds(self, attempt: str) -> bool:
        """Whether `attempt` must have ended, because this one is a later start of the same Slurm job."""
        ours, theirs = self.attempt.split("."), attempt.split(".")
        if self.launcher != "slurm" or len(ours) != 3 or len(theirs) != 3 or ours[0] != theirs[0]:
            return False
        return theirs[1].isdigit() and int(theirs[1]) < int(ours[1])


def refuse_lone_process(env: Mapping[str, str] | None = None) -> None:
    """Raise a RendezvousError if Slurm allocated several tasks and this process was started without srun.

    Otherwise each process would do the whole work.
    """
    env = os.environ if env is None else env
    tasks = env.get("SLURM_NTASKS", "1")
    if _in_batch_script(env) and tasks.isdigit() and int(tasks) > 1 and "TORCHELASTIC_RUN_ID" not in env:
        raise RendezvousError(
            f"this Slurm job has {tasks} tasks, and this process was started outside of srun: it would do all the "
            "work alone. Start it with: srun python -m hpcjobs.worker RUN"
        )


def assert_world(rank: Rank, num_processes: int) -> None:
    """Raise a RendezvousError unless accelerate sees as many processes as the launcher started."""
    if num_processes != rank.world_size:
        raise RendezvousError(
            f"accelerate sees {num_processes} process(es), {rank.launcher} started {rank.world_size}: every rank "
            "would do all the work. Check RANK, WORLD_SIZE and LOCAL_RANK in the job's environment"
        )


def lone_launch_hint(env: Mapping[str, str] | None = None) -> str | None:
    """A hint if `accelerate launch --cpu --num_processes N` has started a single process; else None.

    Without an MPI host file accelerate's launcher starts one process on CPU, whatever N is.
    """
    env = os.environ if env is None else env
    launched = "ACCELERATE_MIXED_PRECISION" in env and "MASTER_PORT" in env and "WORLD_SIZE" not in env
    if not launched:
        return None
    return (
        "accelerate launch has started this one process (with --cpu it starts no more, without an MPI host file); "
        "for N on CPU: accelerate launch --multi_gpu --num_processes N -m hpcjobs.runner --use_accelerate ..."
    )


@dataclass(frozen=True)
class JobEnd:
    """When the job ends: Unix time of the time limit (None: unknown), and seconds from SIGTERM to SIGKILL."""

    at: float | None
    kill_wait: float


def job_end(env: Mapping[str, str] | None = None) -> JobEnd:
    """The end of this process's job. The batch script asks Slurm for values that older versions do not set."""
    env = os.environ if env is None else env
    at = env.get("SLURM_JOB_END_TIME") or env.get("HPCJOBS_END_TIME", "")
    wait = env.get("HPCJOBS_KILL_WAIT", "")
    return JobEnd(float(at) if at.isdigit() else None, float(wait) if wait.isdigit() else _KILL_WAIT)


@dataclass(frozen=True)
class SlurmResources:
    """What Slurm allocated: node lists of the job and of this step, their lengths, and the GPUs of this node."""

    job_nodes: str
    step_nodes: str
    job_count: int
    step_count: int
    node_gpus: int


def slurm_resources(env: Mapping[str, str] | None = None) -> SlurmResources | None:
    """What Slurm allocated to this process's job step; None outside of one."""
    env = os.environ if env is None else env
    if "SLURM_STEP_NODELIST" not in env or _in_batch_script(env):
        return None
    step = _number(env, "SLURM_STEP_NUM_NODES", 1)
    return SlurmResources(
        env.get("SLURM_JOB_NODELIST", ""), env["SLURM_STEP_NODELIST"], _number(env, "SLURM_JOB_NUM_NODES", step), step,
        node_gpus(env),
    )  # fmt: skip


def node_gpus(env: Mapping[str, str] | None = None) -> int:
    """The GPUs that Slurm allocated to this job on this node; 0 if none or unknown."""
    text = (os.environ if env is None else env).get("SLURM_GPUS_ON_NODE", "")
    return int(text) if text.isdigit() else 0


def _in_batch_script(env: Mapping[str, str]) -> bool:
    """Slurm sets SLURM_PROCID=0 in the batch script too; only srun sets a numeric step id."""
    return env.get("ENVIRONMENT") == "BATCH" and "SLURM_STEP_ID" not in env


def _from_slurm(env: Mapping[str, str]) -> Rank:
    world = _number(env, "SLURM_STEP_NUM_TASKS", _number(env, "SLURM_NTASKS"))
    node, local = _number(env, "SLURM_NODEID", 0), _number(env, "SLURM_LOCALID", 0)
    local_world = _tasks_on_node(env.get("SLURM_STEP_TASKS_PER_NODE") or env.get("SLURM_TASKS_PER_NODE", ""), node)
    restart, step = env.get("SLURM_RESTART_COUNT", "0"), env.get("SLURM_STEP_ID", "0")
    array = env.get("SLURM_ARRAY_JOB_ID")
    attempt = env.get("HPCJOBS_ATTEMPT") or f"{_job_name(env)}.{restart}.{step}"
    return Rank(
        rank=_number(env, "SLURM_PROCID"),
        world_size=world,
        local_rank=local,
        local_world_size=local_world or max(1, world // _number(env, "SLURM_NNODES", 1)),
        node=node,
        attempt=attempt,
        launcher="slurm",
        host=_host(env),
        restart=_number(env, "SLURM_RESTART_COUNT", 0) + _number(env, "HPCJOBS_RESTART", 0),
        job_id=env.get("SLURM_JOB_ID"),
        launch_address=env.get("SLURM_LAUNCH_NODE_IPADDR") or env.get("SLURM_SRUN_COMM_HOST"),
        **_copy(env),
        worker=_number(env, "SLURM_ARRAY_TASK_ID", 0) - _number(env, "SLURM_ARRAY_TASK_MIN", 0) if array else 0,
        workers=max(1, _number(env, "SLURM_ARRAY_TASK_COUNT", 1)) if array else 1,
        in_array=array is not None,
    )


class _Copy(TypedDict):
    index: int | None
    copies: int


def _copy(env: Mapping[str, str]) -> _Copy:
    """Which copy of an array of programs this is, as the job's script or the supervisor says."""
    index = _number(env, "HPCJOBS_INDEX") if "HPCJOBS_INDEX" in env else None
    return {"index": index, "copies": _number(env, "HPCJOBS_ARRAY_SIZE", 1)}


@dataclass(frozen=True)
class Allocation:
    """The Slurm job of this batch script: its id, its name in attempts, how often Slurm has started it again, and its
    nodes as Slurm writes them.
    """

    job_id: str
    name: str
    requeues: int
    nodes: str

    def attempt(self, restart: int) -> str:
        """The name of a start of the ranks in this job."""
        return f"{self.name}.{self.requeues}.{restart}"


def allocation(env: Mapping[str, str] | None = None) -> Allocation:
    """The job whose batch script this process runs in. Raises a RendezvousError outside of one."""
    env = os.environ if env is None else env
    if "SLURM_JOB_ID" not in env:
        raise RendezvousError("this process was not started by a Slurm job: it has no SLURM_JOB_ID")
    requeues = _number(env, "SLURM_RESTART_COUNT", 0)
    return Allocation(env["SLURM_JOB_ID"], _job_name(env), requeues, env.get("SLURM_JOB_NODELIST", ""))


def _job_name(env: Mapping[str, str]) -> str:
    array = env.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{env.get('SLURM_ARRAY_TASK_ID', '0')}" if array else env.get("SLURM_JOB_ID", "slurm")


def slurm_job() -> str | None:
    """The id of the Slurm job that this process runs in, of an array the array's; None outside of a job."""
    return os.environ.get("SLURM_ARRAY_JOB_ID") or os.environ.get("SLURM_JOB_ID")


def _tasks_on_node(text: str, node: int) -> int | None:
    """Tasks of a node from Slurm's compressed list: '4(x2),3' is 4, 4, 3."""
    counts: list[int] = []
    for part in filter(None, text.split(",")):
        number, _, times = part.partition("(x")
        if not number.isdigit():
            return None
        counts += [int(number)] * (int(times.rstrip(")")) if times else 1)
    return counts[node] if node < len(counts) else None


def _from_submitit(env: Mapping[str, str]) -> Rank:
    world, rank = _number(env, "SUBMITIT_LOCAL_NTASKS"), _number(env, "SUBMITIT_LOCAL_GLOBALID")
    job = env.get("SUBMITIT_LOCAL_JOB_ID", "0")
    attempt = env.get("HPCJOBS_ATTEMPT") or f"local{job}"
    local = _number(env, "SUBMITIT_LOCAL_LOCALID", rank)
    return Rank(
        rank=rank,
        world_size=world,
        local_rank=local,
        local_world_size=world,
        node=0,
        attempt=attempt,
        launcher="local",
        host=_host(env),
        restart=_number(env, "HPCJOBS_RESTART", 0),
        **_copy(env),
        job_id=job,
    )


def _from_torch(env: Mapping[str, str]) -> Rank:
    rank, world = _number(env, "RANK"), _number(env, "WORLD_SIZE")
    local_world = max(1, _number(env, "LOCAL_WORLD_SIZE", world))
    master = (env["MASTER_ADDR"], _number(env, "MASTER_PORT")) if {"MASTER_ADDR", "MASTER_PORT"} <= env.keys() else None
    return Rank(
        rank=rank,
        world_size=world,
        local_rank=_number(env, "LOCAL_RANK", rank % local_world),
        local_world_size=local_world,
        node=_number(env, "GROUP_RANK", rank // local_world),
        attempt=env.get("HPCJOBS_ATTEMPT") or _own_attempt(),
        launcher="torchrun",
        host=_host(env),
        job_id=env.get("SLURM_JOB_ID"),
        master=master,
    )


def _check(rank: Rank) -> None:
    if not (0 <= rank.rank < rank.world_size and 0 <= rank.local_rank < rank.local_world_size):
        raise RendezvousError(
            f"{rank.launcher} says rank {rank.rank} of {rank.world_size}, local rank {rank.local_rank} of "
            f"{rank.local_world_size}: that cannot be"
        )


def _number(env: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = env.get(name, "")
    if not text and default is not None:
        return default
    try:
        return int(text)
    except ValueError:
        raise RendezvousError(f"{name}={text!r} is not a number: the launcher's environment is broken") from None


def _host(env: Mapping[str, str]) -> str:
    return env.get("SLURMD_NODENAME") or socket.gethostname()


def _own_attempt() -> str:
    """The attempt of a process without a launcher: its pid and start time."""
    return f"p{os.getpid()}t{process_start(os.getpid())}"
