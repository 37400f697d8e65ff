"""The ranks' store: real sockets, real processes, and a stranger of another uid."""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from hpcjobs.distributed.rank import Rank
from hpcjobs.distributed.rendezvous import Rendezvous
from hpcjobs.distributed.store import RefusedError, StoreClient, StoreServer, _greet, torch_store
from tests.users import STRANGER, as_user, needs_root

SECRET = "0" * 64


@pytest.fixture
def place() -> tuple[str, int]:
    listener = socket.create_server(("127.0.0.1", 0))
    StoreServer(listener, SECRET)
    return "127.0.0.1", listener.getsockname()[1]


def test_values_are_those_of_torchs_store(place: tuple[str, int]) -> None:
    import torch.distributed as dist

    theirs = dist.TCPStore("127.0.0.1", 0, 1, True)  # type: ignore[attr-defined]
    for store in (torch_store(StoreClient(*place, SECRET), 5.0), theirs):
        store.set("a", "1\n\0")
        assert store.get("a") == b"1\n\0"
        assert (store.add("n", 2), store.add("n", -5), store.get("n")) == (2, -3, b"-3")
        assert (store.check(["a", "n"]), store.check(["a", "b"])) == (True, False)
        assert store.compare_set("c", "", "new") == b"new"
        assert store.compare_set("c", "old", "newer") == b"new"
        assert store.compare_set("c", "new", "newer") == b"newer"
        assert store.compare_set("d", "old", "new") == b"old"
        assert (store.delete_key("a"), store.delete_key("a")) == (True, False)


def test_what_is_not_there_is_waited_for_until_the_time_is_over(place: tuple[str, int]) -> None:
    client = StoreClient(*place, SECRET)
    with pytest.raises(TimeoutError, match=r"k was not there within 0\.1 s"):
        client.ask("wait", b"k", seconds=0.1)
    got: list[bytes] = []
    waiting = threading.Thread(target=lambda: got.append(client.ask("get", b"k", seconds=30.0)))
    waiting.start()
    client.ask("set", b"k", b"v")  # beside the one that waits
    waiting.join(30)
    assert got == [b"v"]


def test_another_secret_is_refused_on_both_sides(place: tuple[str, int]) -> None:
    with pytest.raises(ConnectionError, match="closed"):
        StoreClient(*place, "1" * 64).ask("set", b"k", b"v")
    assert StoreClient(*place, SECRET).ask("num_keys") == b"0"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"hpcjobs1" + bytes(32) + bytes(32))
        with pytest.raises(RefusedError, match="does not know the run's secret"):
            _greet(ours, SECRET.encode())


def test_without_a_proof_nothing_is_answered(place: tuple[str, int]) -> None:
    with socket.create_connection(place, timeout=30) as link:
        first = link.recv(40)
        link.sendall(bytes(64))
        assert (first[:8], link.recv(100)) == (b"hpcjobs1", b"")


# A stranger: reads what it can of the run folder, then asks the store with what it has.
STRANGER_WORDS = """
import os, sys
folder, port = sys.argv[1], int(sys.argv[2])
print("uid", os.getuid())
master = folder + "/master.json"
for name, mode in ((folder, None), (master, "r"), (master, "w"), (folder + "/x", "w")):
    try:
        os.listdir(name) if mode is None else open(name, mode)
        print("opened", name)
    except PermissionError:
        print("refused")
from hpcjobs.distributed.store import StoreClient
for secret in ("", "0" * 64):
    try:
        StoreClient("127.0.0.1", port, secret).ask("num_keys")
        print("joined")
    except ConnectionError as error:
        print("refused")
for address in sys.argv[3:]:
    import socket
    try:
        socket.create_connection((address, port), timeout=5)
        print("reached", address)
    except OSError:
        print("refused")
"""


@needs_root
def test_another_user_of_the_node_is_refused_by_address_secret_and_modes(open_folder: Path) -> None:
    from hpcjobs.distributed.rendezvous import interfaces

    rank = Rank.from_env({"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_TASKS_PER_NODE": "2", "SLURM_JOB_ID": "1"})
    meeting = Rendezvous.of(open_folder / "rendezvous", rank, 5.0)
    before = os.umask(0)
    try:
        listener = meeting.publish()
    finally:
        os.umask(before)
    StoreServer(listener, meeting.secret())
    elsewhere = [address for address in interfaces().values() if not address.startswith("127.")]
    port = str(listener.getsockname()[1])
    done = as_user(STRANGER, [sys.executable, "-c", STRANGER_WORDS, str(meeting.folder), port, *elsewhere])
    lines = done.stdout.splitlines()
    assert lines == [f"uid {STRANGER}"] + ["refused"] * (6 + len(elsewhere)), done.stdout + done.stderr
    assert StoreClient("127.0.0.1", int(port), meeting.secret()).ask("num_keys") == b"0"
