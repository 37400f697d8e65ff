"""The environment of a user's program: what torchrun gives to its ranks, beside what Slurm has set."""

from __future__ import annotations

import os

from hpcjobs.config.shape import Shape
from hpcjobs.distributed.rank import Rank
from hpcjobs.distributed.rendezvous import interface_towards

# What submitit.helpers.TorchDistributedEnvironment().export() sets itself, and refuses to find set.
MEETING = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def program_env(
    rank: Rank, master: tuple[str, int], shape: Shape, alone: bool = False, restarts: int = 0
) -> dict[str, str]:
    """The variables to add for this rank's program (torch.distributed.run's documentation, "Environment Variables").

    `shape` is that of this launch. `alone`: the program sets RANK and the like itself. torch hosts its own store at the
    address, as it does under srun (TORCHELASTIC_USE_AGENT_STORE). A torchrun that the program starts takes its defaults
    from PET_*: one for each of these nodes, which meet there. `restarts` is `cluster.restarts`, of each allocation.
    """
    nodes = rank.world_size // rank.local_world_size
    most = max(rank.restart, _requeues(rank.attempt) + restarts)
    env = rank.exports(master, use_cpu=not shape.gpus_per_node) | {
        "TORCHELASTIC_RUN_ID": rank.attempt, "TORCHELASTIC_USE_AGENT_STORE": "False",
        "TORCHELASTIC_RESTART_COUNT": str(rank.restart), "TORCHELASTIC_MAX_RESTARTS": str(most),
        "GROUP_RANK": str(rank.node), "GROUP_WORLD_SIZE": str(nodes), "ROLE_NAME": "default",
        "ROLE_RANK": str(rank.rank), "ROLE_WORLD_SIZE": str(rank.world_size), "HPCJOBS_ATTEMPT": rank.attempt,
    }  # fmt: skip
    if rank.index is not None:
        env |= {"HPCJOBS_INDEX": str(rank.index), "HPCJOBS_ARRAY_SIZE": str(rank.copies)}
    env |= _torchrun(rank, master, shape) if shape.ranks_per_node == 1 else {}
    if alone:
        left = {*MEETING, "TORCHELASTIC_RUN_ID"}
        env = {name: value for name, value in env.items() if name not in left}
    return env | _interface(rank, master[0])


def _torchrun(rank: Rank, master: tuple[str, int], shape: Shape) -> dict[str, str]:
    """One rank is one node here, of the local executor too, where all of them are on one machine."""
    values = {
        "PET_NNODES": str(rank.world_size), "PET_NODE_RANK": str(rank.rank), "PET_MASTER_ADDR": master[0],
        "PET_MASTER_PORT": str(master[1]),
    }  # fmt: skip
    gpus = shape.gpus_per_node
    return values | ({"PET_NPROC_PER_NODE": str(gpus)} if gpus else {})


def _requeues(attempt: str) -> int:
    """How often Slurm has started this job again."""
    parts = attempt.split(".")
    return int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else 0


def _interface(rank: Rank, master: str) -> dict[str, str]:
    """gloo's network interface: otherwise it looks up its own host name, which may not resolve."""
    if rank.world_size == 1 or "GLOO_SOCKET_IFNAME" in os.environ:
        return {}
    name = interface_towards(master)
    alone = rank.world_size == rank.local_world_size
    return {"GLOO_SOCKET_IFNAME": name} if name and (name != "lo" or alone or master == "127.0.0.1") else {}
