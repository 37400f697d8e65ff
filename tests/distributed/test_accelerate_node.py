"""accelerate's command line on each node of a job; tests/slurm/test_by_hand.py runs it for real."""

from __future__ import annotations

import subprocess
import sys

from hpcjobs.distributed.accelerate_node import launch_command, main
from hpcjobs.distributed.rank import Rank


def test_the_command_names_machines_processes_and_the_meeting_point() -> None:
    rank = Rank(
        rank=1, world_size=3, local_rank=0, local_world_size=1, node=1, attempt="a", launcher="slurm", host="n2"
    )
    words = " ".join(launch_command(rank, ("10.0.0.1", 4321), gpus=4, words=["-m", "prog", "--x"]))
    assert "--num_processes 12 --num_machines 3 --machine_rank 1" in words
    assert "--main_process_ip 10.0.0.1 --main_process_port 4321" in words
    assert "--multi_gpu" in words
    assert words.endswith("-m prog --x")
    assert "--multi_gpu" not in launch_command(
        Rank(rank=0, world_size=1, local_rank=0, local_world_size=1, node=0, attempt="a", launcher="slurm", host="n"),
        ("127.0.0.1", 1),
        1,
        ["p.py"],
    )


def test_without_a_program_it_says_how_it_is_used() -> None:
    assert main(["rendezvous"]) == 2
    done = subprocess.run(
        [sys.executable, "-m", "hpcjobs.distributed.accelerate_node"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.split()[0]) == (2, "usage:")
