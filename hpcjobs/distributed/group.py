"""Set up accelerate: the ranks meet once, with a deadline, and check that they agree on rank and world size."""

from __future__ import annotations

import logging
import os
import socket
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hpcjobs.distributed.rank import Rank, assert_world
from hpcjobs.distributed.rendezvous import Rendezvous, check_gpus, interface_towards
from hpcjobs.errors import RendezvousError

if TYPE_CHECKING:
    from accelerate import PartialState

log = logging.getLogger(__name__)
_stores: list[Any] = []  # rank 0's store serves as long as the process lives


def join_group(rank: Rank, rendezvous: Rendezvous | None, timeout: float, backend: str = "gloo") -> PartialState:
    """accelerate's state, with all ranks in one process group of `backend`.

    `rendezvous` is in the run folder, for launchers that provide no address (Slurm, submitit). A single rank needs no
    group. Raises a RendezvousError after `timeout` seconds.
    """
    import torch
    from accelerate import PartialState

    use_cpu = not torch.cuda.is_available()
    if rank.world_size == 1:  # torch would want an address to meet nobody at, where a launcher names a world of one
        return work_alone(rank) if rank.launcher == "torchrun" and not rank.master else PartialState(cpu=use_cpu)
    master = rank.master or _meet(rank, rendezvous, use_cpu)
    os.environ.update(rank.exports(master, use_cpu))
    _choose_interface(master[0])
    try:
        state = PartialState(cpu=use_cpu, backend=backend, timeout=timedelta(seconds=timeout))
    except (RuntimeError, ValueError) as error:  # torch's DistError and its kin
        raise RendezvousError(
            f"rank {rank.rank} on {rank.host}: no process group within {timeout:g} s: {error}"
        ) from error
    assert_world(rank, state.num_processes)
    return state


def _meet(rank: Rank, rendezvous: Rendezvous | None, use_cpu: bool) -> tuple[str, int]:
    if rendezvous is None:
        raise RendezvousError(
            f"{rank.world_size} ranks under {rank.launcher} need a run folder to meet in, or MASTER_ADDR"
        )
    rendezvous.arrive({"gpus": [] if use_cpu else [_gpu_id(rank)]})
    if not rank.is_main:
        os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
        return rendezvous.find()
    listener = rendezvous.publish()
    check_gpus(rendezvous.arrivals())
    return host_store(listener, rank.world_size, rendezvous.timeout)


def host_store(listener: socket.socket, world_size: int, timeout: float) -> tuple[str, int]:
    """Serve torch's TCPStore on the socket that was published; every rank is its client. Returns its address and port.
    """
    import torch.distributed as dist

    port = listener.getsockname()[1]
    store = dist.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", port, world_size, True, timedelta(seconds=timeout), wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )  # fmt: skip
    _stores.append(store)
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    return "127.0.0.1", port


def _choose_interface(master: str) -> None:
    """Set gloo's network interface: otherwise it looks up its own host name, which may not resolve."""
    interface = interface_towards(master)
    if interface and (interface != "lo" or int(os.environ["WORLD_SIZE"]) == int(os.environ["LOCAL_WORLD_SIZE"])):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


def _gpu_id(rank: Rank) -> str:
    """The UUID of this rank's GPU: CUDA device numbers differ between processes."""
    import torch

    number = rank.local_rank % torch.cuda.device_count()
    return str(torch.cuda.get_device_properties(number).uuid)


def work_alone(rank: Rank) -> PartialState:
    """accelerate's state of a rank without a process group, on its own GPU, for work without collectives."""
    import torch
    from accelerate import PartialState

    leave_group()
    PartialState._reset_state()
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    if not torch.cuda.is_available():
        return PartialState(cpu=True)
    os.environ["ACCELERATE_TORCH_DEVICE"] = f"cuda:{rank.local_rank % torch.cuda.device_count()}"
    return PartialState()


def leave_group() -> None:
    """Destroy the process group without waiting: dead ranks must not block the others."""
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
