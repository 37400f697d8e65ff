"""`accelerate launch` on every node: `srun --ntasks-per-node=1 python -m` this module, `FOLDER PROGRAM`.

accelerate's launcher needs the first node's address and a port on its command line, the same on all nodes. The first
node publishes them in the shared FOLDER; the others check that they reach that address.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hpcjobs.distributed.rank import Rank, node_gpus
from hpcjobs.distributed.rendezvous import Rendezvous, interface_towards
from hpcjobs.errors import HpcJobsError
from hpcjobs.run_folder.files import make_folder

_TIMEOUT = 600.0


def launch_command(rank: Rank, master: tuple[str, int], gpus: int, words: list[str]) -> list[str]:
    """The `accelerate launch` command line of this node.

    `--multi_gpu` selects the launcher of several processes; with `--cpu` accelerate would start only one.
    """
    each = gpus or 2
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(each * rank.world_size)]
    command += ["--num_machines", str(rank.world_size), "--machine_rank", str(rank.rank), "--rdzv_backend", "static"]
    command += ["--main_process_ip", master[0], "--main_process_port", str(master[1])]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    if each * rank.world_size > 1:
        command.append("--multi_gpu")
    return [*command, *words]


def main(argv: list[str]) -> int:
    """Find the first node, then run `accelerate launch`; returns its exit code."""
    if len(argv) < 2:
        print(
            "usage: srun python -m hpcjobs.distributed.accelerate_node MEETING PROGRAM ARGS (or -m MODULE ARGS)",
            file=sys.stderr,
        )
        return 2
    rank = Rank.from_env()
    rendezvous = Rendezvous.of(make_folder(Path(argv[0])), rank, _TIMEOUT)
    if rank.is_main:
        listener = rendezvous.publish()
        master = ("127.0.0.1" if rank.world_size == 1 else _own_address(rendezvous), listener.getsockname()[1])
        if rank.world_size > 1:
            rendezvous.arrive({})
            rendezvous.arrivals()  # all have reached us: only now is the port handed to accelerate's own store
        listener.close()
    else:
        master = rendezvous.find()
        rendezvous.arrive({})
    env = dict(os.environ)
    if interface := interface_towards(master[0]):
        env.setdefault("GLOO_SOCKET_IFNAME", interface)
    rank.limit_threads(env)
    if not Path("/proc/driver/nvidia").exists() and not Path("/dev/kfd").exists():
        env.setdefault("ACCELERATE_USE_CPU", "true")
    return subprocess.run(launch_command(rank, master, node_gpus(), argv[1:]), env=env, check=False).returncode


def _own_address(rendezvous: Rendezvous) -> str:
    address: str = rendezvous.published()["addresses"][0]  # type: ignore[index]
    return address


def run() -> int:
    """Run the command line; returns its exit code."""
    try:
        return main(sys.argv[1:])
    except (OSError, HpcJobsError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(run())
