"""The group that ranks meet in, and what eval does where they do not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcjobs.config.layers import set_layer
from hpcjobs.config.resolve import resolve
from hpcjobs.distributed.group import join_group
from hpcjobs.distributed.rank import Rank
from hpcjobs.distributed.rendezvous import Rendezvous
from hpcjobs.errors import RendezvousError
from hpcjobs.launch.slurm import clean_environment
from hpcjobs.merge.eval import merge
from hpcjobs.plan.eval import make_plan
from hpcjobs.run_folder.paths import RunPaths

pytestmark = pytest.mark.model


def _plan(folder: Path, *sets: str) -> RunPaths:
    config, _ = resolve("eval", None, None, [set_layer(["data.max_samples=6", *sets])])
    draft = make_plan("eval", config, folder)
    draft.write()
    return draft.paths


def _worker(paths: RunPaths, rank: int, world: int) -> subprocess.CompletedProcess[str]:
    """One rank as Slurm would start it, without the others."""
    env = clean_environment(os.environ) | {
        "SLURM_PROCID": str(rank), "SLURM_NTASKS": str(world), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0",
        "SLURM_JOB_ID": "77", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "hpcjobs.worker", str(paths.root)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_whose_others_never_come_says_so_and_does_all_the_work(tmp_path: Path, rank: int) -> None:
    paths = _plan(tmp_path / "run", "run.rendezvous_timeout=2")
    done = _worker(paths, rank, 2)
    assert done.returncode == 0, done.stderr
    said = paths.rank_log("77.0.0", rank).read_text()
    assert "going on without the group" in said
    assert ("rank 1" if rank == 0 else "rank 0 did not publish") in said
    assert merge(paths).complete


def test_a_world_of_one_needs_no_address() -> None:
    words = "from hpcjobs.distributed.group import join_group; from hpcjobs.distributed.rank import Rank; "
    words += "print(join_group(Rank.from_env(), None, 1.0).num_processes)"
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", words]
    done = subprocess.run(command, env=clean_environment() | alone, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_without_a_meeting_place_a_group_cannot_be_joined() -> None:
    rank = Rank(
        rank=1, world_size=4, local_rank=1, local_world_size=4, node=0, attempt="a", launcher="slurm", host="here"
    )
    with pytest.raises(RendezvousError, match="need a run folder to meet in"):
        join_group(rank, None, 1.0)


def test_two_ranks_on_one_gpu_are_refused(tmp_path: Path) -> None:
    from hpcjobs.distributed.rendezvous import check_gpus

    rendezvous = Rendezvous.of(
        tmp_path,
        Rank(rank=0, world_size=2, local_rank=0, local_world_size=2, node=0, attempt="a", launcher="slurm", host="n1"),
        1.0,
    )
    rendezvous.arrive({"gpus": ["GPU-1"]})
    Rendezvous.of(
        tmp_path,
        Rank(rank=1, world_size=2, local_rank=1, local_world_size=2, node=0, attempt="a", launcher="slurm", host="n1"),
        1.0,
    ).arrive({"gpus": ["GPU-1"]})
    with pytest.raises(RendezvousError, match="GPU GPU-1 on n1 has two ranks, 0 and 1"):
        check_gpus(rendezvous.arrivals())


# A rank of a group of two whose other member, after the store, turns out not to have the run's secret.
PEER = """
import sys
from pathlib import Path
from hpcjobs.distributed.group import _check_peers, join_group
from hpcjobs.distributed.rank import Rank
from hpcjobs.distributed.rendezvous import Rendezvous

rank = Rank.from_env()
state = join_group(rank, Rendezvous.of(Path(sys.argv[1]), rank, 60.0), 60.0)
print(state.num_processes, flush=True)
_check_peers(rank, b"the run's" if rank.is_main else b"a stranger's")
"""


def test_ranks_meet_and_a_connection_that_leads_to_no_rank_of_the_run_is_found(tmp_path: Path) -> None:
    env = clean_environment() | {"OMP_NUM_THREADS": "1", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "9"}
    each = [{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_TASKS_PER_NODE": "2"} for rank in (0, 1)]
    command = [sys.executable, "-c", PEER, str(tmp_path)]
    ranks = [
        subprocess.Popen(command, env=env | own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for own in each
    ]
    for number, one in enumerate(ranks):
        out, said = one.communicate(timeout=120)
        assert out == "2\n", said
        assert f"rank {number} on" in said
        assert "leads to no rank of this run" in said
