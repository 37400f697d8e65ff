"""Which GPUs a rank has, and the audit at start: every allocated GPU has exactly one rank, and no node is idle."""

from __future__ import annotations

from collections.abc import Mapping

from hpcjobs.distributed.rank import Rank, SlurmResources
from hpcjobs.errors import RendezvousError


class AllocationError(RendezvousError):
    """The job's ranks use fewer or more resources than were allocated. A restart would not help."""

    fatal = True


def own_gpus(rank: Rank, env: Mapping[str, str], each: int) -> dict[str, str]:
    """CUDA_VISIBLE_DEVICES with the rank's `each` GPUs, if the launcher shows it those of all ranks.

    Empty if nothing has to change: with one GPU per rank accelerate chooses by LOCAL_RANK. Raises a RendezvousError
    if there are too few GPUs.
    """
    visible = [gpu for gpu in env.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    if each == 1 or len(visible) <= each:
        return {}
    mine = visible[rank.local_rank * each : (rank.local_rank + 1) * each]
    if len(mine) < each:
        raise RendezvousError(
            f"local rank {rank.local_rank} needs {each} GPUs (model.gpus_per_rank), and its node shows "
            f"{len(visible)} to {rank.local_world_size} ranks: {','.join(visible)}"
        )
    return {"CUDA_VISIBLE_DEVICES": ",".join(mine)}


def audit_allocation(rank: Rank, given: SlurmResources | None, gpus_per_rank: int, allow_idle: bool) -> list[str]:
    """Messages about allocated but idle nodes and GPUs. Raises an AllocationError unless `allow_idle`.

    Every rank of the job sees an idle node, and every rank of a node its idle GPUs, so all ranks concerned end and none
    goes on in a job of the wrong shape.
    """
    if given is None or rank.launcher != "slurm":
        return []
    if 0 < given.node_gpus < rank.local_world_size * gpus_per_rank:
        raise AllocationError(
            f"{rank.local_world_size} ranks of {gpus_per_rank} GPU(s) share the {given.node_gpus} GPU(s) that Slurm "
            f"gave on {rank.host}: each rank needs its own; ask for --gpus-per-node "
            f"{rank.local_world_size * gpus_per_rank}, or start fewer ranks"
        )
    idle = list(_idle(rank, given, gpus_per_rank))
    if idle and not allow_idle:
        raise AllocationError(
            f"{'; '.join(idle)}: paid for and not used; start srun over the whole allocation with a rank for each GPU, "
            "ask for less, or say cluster.allow_idle: true"
        )
    return idle


def _idle(rank: Rank, given: SlurmResources, gpus_per_rank: int) -> list[str]:
    messages = []
    if given.step_count < given.job_count:
        messages.append(
            f"{given.job_count - given.step_count} of {given.job_count} allocated nodes have no rank: the job has "
            f"{given.job_nodes}, its ranks are on {given.step_nodes}"
        )
    spare = given.node_gpus - rank.local_world_size * gpus_per_rank
    if spare > 0:
        messages.append(
            f"{spare} of {given.node_gpus} GPUs allocated on {rank.host} have no rank: {rank.local_world_size} "
            f"rank(s) of {gpus_per_rank} GPU(s) run there"
        )
    return messages
