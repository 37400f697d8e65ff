"""Ranks find rank 0: real processes, real sockets."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest

from hpcjobs.distributed.rank import Rank
from hpcjobs.distributed.rendezvous import (
    Arrival,
    Rendezvous,
    answers,
    check_gpus,
    interface_towards,
    interfaces,
    own_addresses,
)
from hpcjobs.errors import RendezvousError

# A rank of its own: says that it looks, then where it found rank 0, or why it did not.
RANK = """
import sys
from pathlib import Path
from hpcjobs.errors import RendezvousError
from hpcjobs.distributed.rank import Rank
from hpcjobs.distributed.rendezvous import Rendezvous

rendezvous = Rendezvous.of(Path(sys.argv[1]), Rank.from_env(), float(sys.argv[2]))
rendezvous.arrive({"gpus": []})
print("looking", flush=True)
try:
    print(*rendezvous.find(), flush=True)
except RendezvousError as error:
    print("error:", error, flush=True)
"""


def env_of(rank: int, world: int) -> dict[str, str]:
    return {
        "SLURM_PROCID": str(rank), "SLURM_NTASKS": str(world), "SLURM_LOCALID": str(rank), "SLURM_JOB_ID": "9",
        "SLURM_STEP_ID": "0", "SLURM_TASKS_PER_NODE": str(world), "SLURMD_NODENAME": "this",
    }  # fmt: skip


def rendezvous_of(folder: Path, rank: int, world: int, timeout: float) -> Rendezvous:
    return Rendezvous.of(folder, Rank.from_env(env_of(rank, world)), timeout)


def start(folder: Path, rank: int, world: int, timeout: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RANK, str(folder), str(timeout)]
    return subprocess.Popen(command, env=os.environ | env_of(rank, world), stdout=subprocess.PIPE, text=True)


def line(output: IO[str] | None) -> str:
    assert output is not None
    return output.readline().strip()


def test_ranks_that_look_before_rank_0_has_published_find_it(tmp_path: Path) -> None:
    others = [start(tmp_path, rank, 3, 30) for rank in (1, 2)]
    try:
        assert [line(other.stdout) for other in others] == ["looking", "looking"]
        main = rendezvous_of(tmp_path, 0, 3, 30)
        main.arrive({"gpus": []})
        with main.publish() as listener:
            port = listener.getsockname()[1]
            found = [line(other.stdout).split() for other in others]
            assert [int(words[1]) for words in found] == [port, port]
            assert all(answers(words[0], port, 5) for words in found)
            assert [arrival["rank"] for arrival in main.arrivals()] == [0, 1, 2]
    finally:
        for other in others:
            other.kill()
            other.communicate()


def test_what_is_never_published_is_said_by_the_deadline(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(RendezvousError, match=r"rank 0 did not publish its address within 0\.5 s.*run folder") as error:
        rendezvous_of(tmp_path, 1, 2, 0.5).find()
    assert str(tmp_path) in str(error.value)
    assert 0.5 <= time.monotonic() - began < 5


def test_half_a_file_is_no_address(tmp_path: Path) -> None:
    rendezvous = rendezvous_of(tmp_path, 1, 2, 0.3)
    (rendezvous.folder / "master.json").write_text('{"port": ')
    with pytest.raises(RendezvousError, match="did not publish"):
        rendezvous.find()


def test_an_address_that_nobody_answers_at_is_named(tmp_path: Path) -> None:
    main = rendezvous_of(tmp_path, 0, 2, 1)
    with main.publish() as listener:
        port = listener.getsockname()[1]
    with pytest.raises(
        RendezvousError, match=rf"rank 1 on this could not reach rank 0 on this at .* port {port} within"
    ):
        rendezvous_of(tmp_path, 1, 2, 0.5).find()


def test_loopback_of_another_machine_is_not_rank_0(tmp_path: Path) -> None:
    main = rendezvous_of(tmp_path, 0, 2, 1)
    with main.publish():
        place = json.loads((main.folder / "master.json").read_text())
        (main.folder / "master.json").write_text(
            json.dumps(place | {"machine": "elsewhere", "addresses": ["127.0.0.1"]})
        )
        with pytest.raises(RendezvousError):
            rendezvous_of(tmp_path, 1, 2, 0.3).find()


def test_ranks_that_did_not_come_are_named(tmp_path: Path) -> None:
    for rank in (0, 2):
        rendezvous_of(tmp_path, rank, 4, 0.3).arrive({})
    with pytest.raises(RendezvousError, match=r"2 of 4 ranks did not come within 0\.3 s: rank 1, 3$"):
        rendezvous_of(tmp_path, 0, 4, 0.3).arrivals()


def test_another_attempt_is_another_meeting(tmp_path: Path) -> None:
    requeued = Rendezvous.of(tmp_path, Rank.from_env(env_of(1, 2) | {"SLURM_RESTART_COUNT": "1"}), 0.3)
    with rendezvous_of(tmp_path, 0, 2, 1).publish(), pytest.raises(RendezvousError, match="did not publish"):
        requeued.find()


def test_nobody_gets_the_port_between_publishing_and_use(tmp_path: Path) -> None:
    with rendezvous_of(tmp_path, 0, 2, 1).publish() as listener:
        port = listener.getsockname()[1]
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            with socket.socket() as other:
                other.setsockopt(socket.SOL_SOCKET, option, 1)
                with pytest.raises(OSError, match="in use"):
                    other.bind(("", port))
        assert answers("127.0.0.1", port, 5)  # and it answers before anybody has accepted
    assert not answers("127.0.0.1", port, 5)


def test_two_meetings_have_two_ports(tmp_path: Path) -> None:
    with (
        rendezvous_of(tmp_path / "a", 0, 2, 1).publish() as one,
        rendezvous_of(tmp_path / "b", 0, 2, 1).publish() as two,
    ):
        assert one.getsockname() != two.getsockname()


def test_two_ranks_on_one_gpu_are_named() -> None:
    def arrival(rank: int, host: str, *gpus: str) -> Arrival:
        return {"rank": rank, "host": host, "gpus": list(gpus)}

    check_gpus([arrival(0, "a", "GPU-1"), arrival(1, "a", "GPU-2"), arrival(2, "b", "GPU-1"), arrival(3, "b")])
    with pytest.raises(RendezvousError, match=r"GPU GPU-1 on a has two ranks, 0 and 3.*CUDA_VISIBLE_DEVICES"):
        check_gpus([arrival(0, "a", "GPU-1"), arrival(3, "a", "GPU-1")])


def test_own_addresses_end_with_loopback() -> None:
    rank = Rank.from_env(env_of(0, 1) | {"SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1"})
    addresses = own_addresses(rank)
    assert "127.0.0.1" in addresses
    assert len(set(addresses)) == len(addresses)
    loops = [address.startswith("127.") for address in addresses]
    assert loops == sorted(loops)
    assert set(interfaces().values()) <= set(addresses)


def test_the_interface_towards_this_machine_is_loopback() -> None:
    assert interface_towards("127.0.0.1") == "lo"
    assert interface_towards("no such host.invalid") is None
