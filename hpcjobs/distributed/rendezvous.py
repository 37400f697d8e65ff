"""How ranks find rank 0: it listens, then publishes its addresses in the run folder. Host names need not resolve.

A fixed port may be taken, a port derived from the job id may belong to another job, and a name that does not resolve
makes torch wait for half an hour. Rank 0 listens on a free port and keeps that socket until torch's store takes it
over, so that no other process can get the port in between.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

from hpcjobs.distributed.rank import Rank
from hpcjobs.errors import RendezvousError
from hpcjobs.run_folder.files import make_folder, read_json, write_json
from hpcjobs.run_folder.process import machine_id

_POLL_SECONDS = 0.1
_SIOCGIFADDR = 0x8915


class _Place(TypedDict):
    """The address of rank 0."""

    addresses: list[str]
    port: int
    host: str
    machine: str


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
        """Rank 0: listen on a free port and publish addresses and port. The socket stays open until torch's store has
        it.
        """
        listener = socket.create_server(("", 0), backlog=max(128, self.rank.world_size), reuse_port=False)
        place = {
            "port": listener.getsockname()[1],
            "addresses": own_addresses(self.rank),
            "machine": machine_id(),
            "host": self.rank.host,
        }
        write_json(self.folder / "master.json", place)
        return listener

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


def own_addresses(rank: Rank) -> list[str]:
    """This machine's IPv4 addresses, most reachable first, loopback last."""
    found: list[str] = []
    if rank.launch_address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((rank.launch_address, 9))  # sends nothing; asks for the route's own address
            found.append(probe.getsockname()[0])
    found += interfaces().values()
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
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        own = probe.getsockname()[0]
        return next((name for name, ip in interfaces().items() if ip == own), None)
    return None
