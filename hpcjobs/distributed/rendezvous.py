"""How ranks find rank 0: it listens, then publishes its addresses in the run folder. Host names need not resolve.

A fixed port may be taken, a port derived from the job id may belong to another job, and a name that does not resolve
makes torch wait for half an hour. Rank 0 listens on a free port and keeps that socket until a store takes it over, so
that no other process can get the port in between. It listens where the ranks of this job can reach it and nowhere
else, and publishes a secret with the address: only who may read the run folder is served (`store.py`).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

from hpcjobs.distributed.rank import Rank
from hpcjobs.errors import RendezvousError
from hpcjobs.run_folder.files import make_folder, read_json, write_json
from hpcjobs.run_folder.process import machine_id

_POLL_SECONDS = 0.1
_SIOCGIFADDR = 0x8915
_ALL_HERE = "all-here.json"
# How much longer than rank 0 the others wait for those that are missing: it names them.
_PATIENCE_SECONDS = 10.0


class _Place(TypedDict):
    """The address of rank 0."""

    addresses: list[str]
    port: int
    host: str
    machine: str
    secret: str


class Arrival(TypedDict):
    """What a rank records when it arrives."""

    rank: int
    host: str
    gpus: NotRequired[list[str]]


@dataclass(frozen=True)
class Rendezvous:
    """The rendezvous of one attempt, in a folder of the run. `timeout` is in seconds."""

    folder: Path
    rank: Rank
    timeout: float

    @classmethod
    def of(cls, folder: Path, rank: Rank, timeout: float) -> Rendezvous:
        """The rendezvous of the rank's attempt, in the run's rendezvous folder."""
        return cls(make_folder(folder / rank.attempt), rank, timeout)

    def publish(self) -> socket.socket:
        """Rank 0: listen on a free port and publish addresses, port and secret. The socket stays open until a store has
        it.
        """
        narrow = narrow_address(self.rank)
        listener = socket.create_server((narrow or "", 0), backlog=max(128, self.rank.world_size), reuse_port=False)
        self._publish(listener, narrow)
        return listener

    @contextlib.contextmanager
    def meeting_place(self) -> Iterator[tuple[str, int]]:
        """Address and port where the ranks of a program may meet: reserved by rank 0 for the block, and not served.

        All ranks come here first. Then nobody listens at the port, and it stays bound with SO_REUSEADDR: who asks for
        any free port does not get it, and who asks for it by number, as torch's store does, can. Raises a
        RendezvousError after `timeout` seconds.
        """
        if not self.rank.is_main:
            master = self.find()
            self.arrive({})
            self._await_all()
            yield master
            return
        narrow = narrow_address(self.rank)
        with _bound(narrow or "", 0) as kept:
            with _bound(narrow or "", kept.getsockname()[1]) as listener:
                listener.listen(max(128, self.rank.world_size))
                self._publish(listener, narrow)
                self.arrive({})
                self.arrivals()
            write_json(self.folder / _ALL_HERE, {})
            yield place_of(kept)

    def _await_all(self) -> None:
        deadline = time.monotonic() + self.timeout + _PATIENCE_SECONDS
        while not (self.folder / _ALL_HERE).exists():
            if time.monotonic() > deadline:
                raise RendezvousError(f"rank 0 has not said within {self.timeout:g} s that all ranks are here")
            time.sleep(_POLL_SECONDS)

    def _publish(self, listener: socket.socket, narrow: str | None) -> None:
        place = {
            "port": listener.getsockname()[1],
            "addresses": [narrow] if narrow else own_addresses(self.rank),
            "machine": machine_id(),
            "host": self.rank.host,
            "secret": secrets.token_hex(32),
        }
        write_json(self.folder / "master.json", place)

    def find(self) -> tuple[str, int]:
        """The address and port at which rank 0 answers. Raises a RendezvousError after `timeout` seconds."""
        deadline = time.monotonic() + self.timeout
        tried: list[str] = []
        place: _Place | None = None
        while time.monotonic() < deadline:
            place = self.published() or place
            if place:
                tried = [a for a in place["addresses"] if self._may_reach(a, place)]
                for address in tried:
                    if answers(address, place["port"], min(2.0, max(0.1, deadline - time.monotonic()))):
                        return address, int(place["port"])
            time.sleep(_POLL_SECONDS)
        if place and tried:
            raise RendezvousError(
                f"rank {self.rank.rank} on {self.rank.host} could not reach rank 0 on {place['host']} at "
                f"{', '.join(tried)} port {place['port']} within {self.timeout:g} s: a firewall between nodes?"
            )
        raise RendezvousError(
            f"rank 0 did not publish its address within {self.timeout:g} s: it never started, or its node does not "
            f"share the run folder ({self.folder})"
        )

    def published(self) -> _Place | None:
        """What rank 0 has published; None before that."""
        with contextlib.suppress(OSError, ValueError):
            place: _Place = read_json(self.folder / "master.json")
            return place
        return None

    def secret(self) -> str:
        """The secret that rank 0 has published. Raises a RendezvousError before that."""
        if place := self.published():
            return place["secret"]
        raise RendezvousError(f"rank 0 has published no secret in {self.folder}")

    def _may_reach(self, address: str, place: _Place) -> bool:
        return not address.startswith("127.") or place["machine"] == machine_id()

    def arrive(self, facts: Mapping[str, object]) -> None:
        """Record that this rank has arrived, with its host and GPUs."""
        write_json(
            self.folder / f"rank-{self.rank.rank}.json", {"rank": self.rank.rank, "host": self.rank.host, **facts}
        )

    def arrivals(self) -> list[Arrival]:
        """Rank 0: wait for all ranks and return what each has recorded. Raises a RendezvousError that names missing
        ranks.
        """
        deadline = time.monotonic() + self.timeout
        wanted = {f"rank-{number}.json" for number in range(self.rank.world_size)}
        while not wanted <= (here := {entry.name for entry in os.scandir(self.folder)}):
            if time.monotonic() > deadline:
                absent = sorted(int(name[5:-5]) for name in wanted - here)
                raise RendezvousError(
                    f"{len(absent)} of {self.rank.world_size} ranks did not come within {self.timeout:g} s: "
                    f"rank {', '.join(map(str, absent[:16]))}"
                )
            time.sleep(_POLL_SECONDS)
        return [json.loads((self.folder / name).read_bytes()) for name in sorted(wanted)]


def _bound(address: str, port: int) -> socket.socket:
    """A socket that shares its port with whoever asks for that by number, as long as only one listens."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((address, port))
    return bound


def check_gpus(arrivals: list[Arrival]) -> None:
    """Raise a RendezvousError if two ranks of a machine use the same GPU."""
    seen: dict[tuple[str, str], int] = {}
    for arrival in arrivals:
        for gpu in arrival.get("gpus", ()):
            place = (arrival["host"], gpu)
            if place in seen:
                raise RendezvousError(
                    f"GPU {gpu} on {arrival['host']} has two ranks, {seen[place]} and {arrival['rank']}: check "
                    "CUDA_VISIBLE_DEVICES and --gpu-bind"
                )
            seen[place] = arrival["rank"]


def answers(address: str, port: int, timeout: float) -> bool:
    """Whether a TCP connection to this address and port succeeds within `timeout` seconds."""
    try:
        with socket.create_connection((address, port), timeout=timeout):
            return True
    except OSError:
        return False


def narrow_address(rank: Rank) -> str | None:
    """The one address to listen at: loopback if all ranks are on this node, else that by which Slurm has started them.

    None if that is not known, or is loopback on a cluster whose nodes are one machine: then it takes all addresses.
    """
    if rank.local_world_size == rank.world_size:
        return "127.0.0.1"
    address = route_address(rank.launch_address) if rank.launch_address else None
    return None if address is None or address.startswith("127.") else address


def place_of(listener: socket.socket) -> tuple[str, int]:
    """Where rank 0 itself reaches its listener: address and port."""
    address, port = listener.getsockname()
    return "127.0.0.1" if address == "0.0.0.0" else address, port


def route_address(towards: str) -> str | None:
    """This machine's address on the route to another."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((towards, 9))  # sends nothing; asks for the route's own address
        address: str = probe.getsockname()[0]
        return address
    return None


def own_addresses(rank: Rank) -> list[str]:
    """This machine's IPv4 addresses, most reachable first, loopback last."""
    route = route_address(rank.launch_address) if rank.launch_address else None
    found = [*([route] if route else []), *interfaces().values()]
    unique = list(dict.fromkeys(found))
    return sorted(unique, key=lambda address: address.startswith("127.")) or ["127.0.0.1"]


def interfaces() -> dict[str, str]:
    """Interface name -> IPv4 address, by the kernel's SIOCGIFADDR (netdevice(7))."""
    found: dict[str, str] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name[:15].encode()))
                found[name] = socket.inet_ntoa(answer[20:24])
    return found


def interface_towards(address: str) -> str | None:
    """The network interface that leads to `address`, for gloo and NCCL."""
    own = route_address(address)
    return next((name for name, ip in interfaces().items() if ip == own), None) if own else None
