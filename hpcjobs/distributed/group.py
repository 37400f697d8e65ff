"""Set up accelerate: the ranks meet once, with a deadline, and check that they agree on rank and world size."""

from __future__ import annotations

import hmac
import logging
import os
import socket
from datetime import timedelta
from multiprocessing import parent_process
from typing import TYPE_CHECKING, Any

from hpcjobs.distributed.rank import Rank, assert_world
from hpcjobs.distributed.rendezvous import Rendezvous, check_gpus, interface_towards, place_of
from hpcjobs.distributed.store import StoreClient, StoreServer, torch_store
from hpcjobs.errors import RendezvousError

if TYPE_CHECKING:
    from accelerate import PartialState

log = logging.getLogger(__name__)
_stores: list[Any] = []  # rank 0's store serves as long as the process lives
_alone: list[Rank] = []  # this rank, where it works without the others


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
    master = rank.master or _meet(rank, rendezvous, use_cpu, backend)
    os.environ.update(rank.exports(master, use_cpu))
    _choose_interface(master[0])
    try:
        if rendezvous and not rank.master and backend != "nccl":
            _enter(rank, StoreClient(*master, rendezvous.secret()), rendezvous.secret(), timeout, backend)
        state = PartialState(cpu=use_cpu, backend=backend, timeout=timedelta(seconds=timeout))
    except (RuntimeError, ValueError, OSError) as error:  # torch's DistError and its kin, or a store that has gone
        raise RendezvousError(
            f"rank {rank.rank} on {rank.host}: no process group within {timeout:g} s: {error}"
        ) from error
    assert_world(rank, state.num_processes)
    return state


def join_once(rank: Rank, timeout: float) -> PartialState:
    """`join_group`, or the state of a group that this process is in already, by a second connector or an Accelerator.

    Raises a RendezvousError if that group is not the launcher's.
    """
    from accelerate import PartialState
    from accelerate.state import AcceleratorState

    if PartialState._shared_state == {}:
        return join_group(rank, None, timeout)
    state = PartialState()
    if _alone:
        return state
    if state.num_processes == 1 < rank.world_size and AcceleratorState._shared_state == {} and parent_process():
        PartialState._reset_state()  # a notebook's, which worked alone before its launcher forked this process
        return join_group(rank, None, timeout)
    assert_world(rank, state.num_processes)
    return state


def _meet(rank: Rank, rendezvous: Rendezvous | None, use_cpu: bool, backend: str) -> tuple[str, int]:
    if rendezvous is None:
        raise RendezvousError(
            f"{rank.world_size} ranks under {rank.launcher} need a run folder to meet in, or MASTER_ADDR"
        )
    rendezvous.arrive({"gpus": [] if use_cpu else [_gpu_id(rank)]})
    if backend == "nccl":
        return _meet_at_torchs(rank, rendezvous)
    if not rank.is_main:
        return rendezvous.find()
    listener = rendezvous.publish()
    _stores.append(StoreServer(listener, rendezvous.secret()))  # at once: others may come long before the last one
    check_gpus(rendezvous.arrivals())
    return place_of(listener)


def _meet_at_torchs(rank: Rank, rendezvous: Rendezvous) -> tuple[str, int]:
    """The same at torch's own store: NCCL asks it from threads of its own, in which Python code could hang at the end.
    """
    if not rank.is_main:
        os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
        return rendezvous.find()
    listener = rendezvous.publish()
    check_gpus(rendezvous.arrivals())
    return host_store(listener, rank.world_size, rendezvous.timeout)


def _enter(rank: Rank, client: StoreClient, secret: str, timeout: float, backend: str) -> None:
    """Make torch's process group over the run's own store; accelerate takes the group that is there."""
    import torch.distributed as dist

    limit = timedelta(seconds=timeout)
    store = torch_store(client, timeout)
    _stores.append(store)  # torch calls it from C++, which does not keep the Python object
    dist.init_process_group(backend, store=store, rank=rank.rank, world_size=rank.world_size, timeout=limit)
    _check_peers(rank, secret.encode())


def _check_peers(rank: Rank, secret: bytes) -> None:
    """Raise a RendezvousError unless each of gloo's connections leads to the rank that it should.

    gloo takes whoever connects first with the right small number. What one rank proves to another is good for that
    pair alone, so that it cannot be passed on.
    """
    import torch
    import torch.distributed as dist

    def proofs(pairs: list[tuple[int, int]]) -> bytes:
        return b"".join(hmac.digest(secret, b"gloo|%d|%d" % pair, "sha256") for pair in pairs)

    others = range(rank.world_size)
    sent = torch.frombuffer(bytearray(proofs([(rank.rank, other) for other in others])), dtype=torch.uint8)
    got = torch.zeros_like(sent)
    dist.all_to_all_single(got, sent)
    if not hmac.compare_digest(bytes(got.tolist()), proofs([(other, rank.rank) for other in others])):
        raise RendezvousError(
            f"rank {rank.rank} on {rank.host}: a connection of the process group leads to no rank of this run: "
            "another user of the node has come between; next: hpcjobs resume, with --exclusive"
        )


def host_store(listener: socket.socket, world_size: int, timeout: float) -> tuple[str, int]:
    """Serve torch's TCPStore on the socket that was published, for NCCL and for programs that meet themselves.

    Returns its address and port. It asks for no secret: torch has none.
    """
    import torch.distributed as dist

    address, port = place_of(listener)
    store = dist.TCPStore(  # type: ignore[attr-defined]
        address, port, world_size, True, timedelta(seconds=timeout), wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )  # fmt: skip
    _stores.append(store)
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    return address, port


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
    _alone[:] = [rank]
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
