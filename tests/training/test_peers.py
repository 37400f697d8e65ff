"""Lost ranks are found by their heartbeats, and named; ranks that ended because of another one are not blamed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.distributed.rank import Rank
from hpcjobs.run_folder.files import make_folder
from hpcjobs.run_folder.heartbeat import Heartbeat, Vitals, _padded
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity
from hpcjobs.run_folder.rank_state import ENDED, RankState
from hpcjobs.training import peers
from hpcjobs.training.peers import Peers


def vitals(rank: int, state: str = "working", **more: Any) -> Vitals:
    found = Vitals(rank=rank, attempt="a", host=f"node{rank}", world_size=4, identity=Identity.own().values())
    found.beat = 1
    for name, value in more.items():
        setattr(found, name, value)
    if state in ENDED:
        found.end(RankState(state), more.get("ended"))
    else:
        found.state = RankState(state)
    return found


def write_vitals(paths: RunPaths, found: Vitals) -> None:
    paths.heartbeat("a", found.rank).write_bytes(_padded(asdict(found)))


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    made = RunPaths(tmp_path)
    make_folder(made.heartbeats)
    for rank in range(4):
        write_vitals(made, vitals(rank))
    return made


def peers_of(paths: RunPaths, rank: int) -> Peers:
    heartbeat = Heartbeat(paths.heartbeats / "own.json", vitals(rank), 5.0)
    return Peers(
        paths,
        Rank(
            rank=rank,
            world_size=4,
            local_rank=rank,
            local_world_size=4,
            node=0,
            attempt="a",
            launcher="single",
            host="here",
        ),
        20.0,
        heartbeat,
        0.01,
    )


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_GRACE_SECONDS", 0.3)


def test_the_dead_one_is_named_and_not_those_it_took_along(paths: RunPaths) -> None:
    because = "LostRankError: rank 2 on node2 was lost"
    write_vitals(paths, vitals(0, "failed", first_error=because))
    write_vitals(paths, vitals(3, "failed", first_error=because))
    write_vitals(paths, vitals(2, "dead", ended="ended by SIGKILL"))
    lost = peers_of(paths, 1).blame(RuntimeError("connection closed"), 7)
    assert str(lost) == "rank 2 on node2 (ended by SIGKILL) was lost after step 7: the others cannot go on without it"


def test_who_says_nothing_while_the_others_end_is_named(paths: RunPaths) -> None:
    """A node is gone with the guards on it: nobody was left to tell."""
    because = "LostRankError: rank 2 on node2 was lost"
    write_vitals(paths, vitals(0, "failed", first_error=because))
    lost = peers_of(paths, 1).blame(RuntimeError("connection closed"), 7)
    assert "rank 2 on node2 (no sign of life), rank 3 on node3 (no sign of life) was lost" in str(lost)


def test_an_error_of_ones_own_is_not_laid_on_others(paths: RunPaths) -> None:
    for rank in (0, 2, 3):
        write_vitals(paths, vitals(rank, "done"))
    assert peers_of(paths, 1).blame(RuntimeError("shapes do not fit"), 7) is None
