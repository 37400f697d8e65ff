"""Whether every node and GPU of an allocation has work."""

from __future__ import annotations

import pytest

from hpcjobs.distributed.gpus import AllocationError, audit_allocation, own_gpus
from hpcjobs.distributed.rank import Rank, SlurmResources
from hpcjobs.errors import RendezvousError


def rank_of(local_world: int, launcher: str = "slurm") -> Rank:
    return Rank(
        rank=0,
        world_size=2 * local_world,
        local_rank=0,
        local_world_size=local_world,
        node=0,
        attempt="7.0.0",
        launcher=launcher,
        host="n1",
    )


def allocated(job: int, step: int, gpus: int) -> SlurmResources:
    return SlurmResources(f"n[1-{job}]", f"n[1-{step}]", job, step, gpus)


@pytest.mark.parametrize(
    ("given", "ranks", "each"),
    [
        (allocated(2, 2, 0), 4, 1), (allocated(2, 2, 4), 4, 1), (allocated(2, 2, 4), 2, 2), (allocated(1, 1, 1), 1, 1),
        (allocated(3, 3, 0), 1, 8), (None, 4, 1),
    ],
)  # fmt: skip
def test_what_is_given_and_used_needs_no_word(given: SlurmResources | None, ranks: int, each: int) -> None:
    assert audit_allocation(rank_of(ranks), given, each, allow_idle=False) == []


@pytest.mark.parametrize(
    ("given", "ranks", "each", "words"),
    [
        (allocated(3, 2, 0), 4, 1, [r"1 of 3 allocated nodes have no rank: the job has n\[1-3\], its ranks are on n"]),
        (allocated(2, 2, 4), 3, 1, [r"1 of 4 GPUs allocated on n1 have no rank: 3 rank\(s\) of 1 GPU"]),
        (allocated(2, 2, 8), 2, 2, [r"4 of 8 GPUs allocated on n1 have no rank: 2 rank\(s\) of 2 GPU"]),
        (allocated(4, 1, 4), 1, 1, [r"3 of 4 allocated nodes", r"3 of 4 GPUs"]),
    ],
)  # fmt: skip
def test_what_is_paid_for_and_idle_ends_the_job_unless_it_is_meant(
    given: SlurmResources, ranks: int, each: int, words: list[str]
) -> None:
    with pytest.raises(AllocationError, match=".*".join(words)) as error:
        audit_allocation(rank_of(ranks), given, each, allow_idle=False)
    assert "cluster.allow_idle" in str(error.value)
    assert error.value.fatal
    assert isinstance(error.value, RendezvousError)
    assert len(audit_allocation(rank_of(ranks), given, each, allow_idle=True)) == len(words)


@pytest.mark.parametrize("allow_idle", [False, True])
@pytest.mark.parametrize(("gpus", "ranks", "each", "ask"), [(2, 4, 1, 4), (1, 2, 1, 2), (4, 3, 2, 6)])
def test_ranks_that_would_share_a_gpu_are_refused_whatever_is_allowed(
    gpus: int, ranks: int, each: int, ask: int, allow_idle: bool
) -> None:
    with pytest.raises(AllocationError, match=rf"share the {gpus} GPU\(s\).*--gpus-per-node {ask}"):
        audit_allocation(rank_of(ranks), allocated(2, 2, gpus), each, allow_idle)


@pytest.mark.parametrize("launcher", ["torchrun", "local", "single"])
def test_other_launchers_share_out_what_they_have_by_themselves(launcher: str) -> None:
    assert audit_allocation(rank_of(2, launcher), allocated(4, 1, 8), 1, allow_idle=False) == []


def test_a_rank_of_several_gpus_sees_its_own_alone() -> None:
    node = {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}
    ranks = [
        Rank(rank=n, world_size=2, local_rank=n, local_world_size=2, node=0, attempt="a", launcher="slurm", host="n1")
        for n in (0, 1)
    ]
    assert [own_gpus(rank, node, 2)["CUDA_VISIBLE_DEVICES"] for rank in ranks] == ["0,1", "2,3"]
    assert own_gpus(ranks[1], node, 1) == {}  # accelerate chooses by LOCAL_RANK
    assert own_gpus(ranks[1], {"CUDA_VISIBLE_DEVICES": "2,3"}, 2) == {}  # the launcher has bound them already
    with pytest.raises(RendezvousError, match="shows 3 to 2 ranks"):
        own_gpus(ranks[1], {"CUDA_VISIBLE_DEVICES": "0,1,2"}, 2)
