"""The ring in which the ranks of a program watch each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcjobs.distributed.lost import Ring, read_lost, tell_lost
from hpcjobs.distributed.rank import Rank
from hpcjobs.run_folder.heartbeat import Heartbeat, Vitals
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity
from hpcjobs.run_folder.rank_state import RankState

WORLD = 4


class Ranks:
    """Heartbeats of four ranks, which beat when a test says so; `ring` is that of rank 0."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths, self.now = RunPaths(folder), 0.0
        self.paths.heartbeats.mkdir()
        monkeypatch.setattr("hpcjobs.distributed.lost.time.monotonic", lambda: self.now)
        self.beats = [self._heartbeat(number) for number in range(WORLD)]
        self.ring = Ring(self.paths, self._rank(0), self.beats[0], timeout=10.0)
        self.tick(0, 1, 2, 3)

    def _rank(self, number: int) -> Rank:
        return Rank(
            rank=number, world_size=WORLD, local_rank=number, local_world_size=WORLD, node=0, attempt="a",
            launcher="slurm", host="n",
        )  # fmt: skip

    def _heartbeat(self, number: int) -> Heartbeat:
        vitals = Vitals(rank=number, attempt="a", host="n", world_size=WORLD, identity=Identity.own().values())
        heartbeat = Heartbeat(self.paths.heartbeat("a", number), vitals, 2.0)
        heartbeat.write()
        return heartbeat

    def end(self, number: int, state: RankState, why: str | None = None) -> None:
        self.beats[number].vitals.end(state, why)
        self.beats[number].write()

    def tick(self, *beating: int, seconds: float = 2.0) -> str | None:
        """Time passes, these ranks beat; what rank 0 sees."""
        self.now += seconds
        for number in beating:
            self.beats[number].write()
        return self.ring.lost()


@pytest.fixture
def ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ranks:
    return Ranks(tmp_path, monkeypatch)


def test_a_rank_that_beats_or_has_ended_well_is_not_missed(ranks: Ranks) -> None:
    assert not any(ranks.tick(0, 1, 2, 3) for _ in range(20))
    ranks.end(1, RankState.DONE)
    ranks.end(2, RankState.DRAINED)
    assert not any(ranks.tick(0, 3) for _ in range(20)), "the next one is watched instead"
    ranks.end(3, RankState.DONE)
    assert not any(ranks.tick(0) for _ in range(20)), "rank 0 is the last one"


def test_the_next_one_that_lives_is_watched(ranks: Ranks) -> None:
    ranks.end(1, RankState.DONE)
    assert not any(ranks.tick(0, 3) for _ in range(3))
    silent = [ranks.tick(0, 3) for _ in range(8)]
    assert silent[-1] is not None
    assert silent[-1].startswith("rank 2 on n (no sign of life for ")
    assert read_lost(ranks.paths, "a") == next(one for one in silent if one), "the first record stays"


@pytest.mark.parametrize("state", [RankState.DEAD, RankState.FAILED])
def test_a_death_is_seen_at_once(ranks: Ranks, state: RankState) -> None:
    ranks.end(1, state, "ended by SIGKILL")
    assert ranks.tick(0, 2, 3) == "rank 1 on n (ended by SIGKILL)"


def test_what_another_rank_tells_is_believed(ranks: Ranks) -> None:
    tell_lost(ranks.paths, "a", "rank 2 on m (ended with exit code 7)")
    tell_lost(ranks.paths, "a", "rank 1 on m (ended by SIGTERM)")
    assert ranks.tick(0, 1, 2, 3) == "rank 2 on m (ended with exit code 7)"
    assert read_lost(ranks.paths, "b") is None


def test_time_in_which_one_could_not_write_oneself_does_not_count(ranks: Ranks) -> None:
    """A file system that hangs stops all heartbeats alike."""
    assert not any(ranks.tick() for _ in range(20))
    assert ranks.tick(0) is None, "the others may be a moment behind"
    assert ranks.tick(0, 1, 2, 3, seconds=100.0) is None


def test_one_rank_alone_has_nobody_to_miss(ranks: Ranks) -> None:
    alone = Rank(
        rank=0, world_size=1, local_rank=0, local_world_size=1, node=0, attempt="a", launcher="slurm", host="n"
    )
    ring = Ring(ranks.paths, alone, ranks.beats[0], 10.0)
    ranks.now += 1000
    assert ring.lost() is None


def test_silence_is_measured_however_often_one_looks(ranks: Ranks) -> None:
    """A beat each two seconds, and four looks between: a timeout of ten seconds is ten seconds."""
    began = ranks.now
    while not ranks.tick(seconds=0.5):
        if ranks.now % 2 == 0:
            ranks.beats[0].write()
        assert ranks.now - began < 20
    assert 10 <= ranks.now - began <= 15
