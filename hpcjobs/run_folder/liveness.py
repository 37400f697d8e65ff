"""Which ranks of a run are alive, judged from their heartbeats, launches and srun's reports."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hpcjobs.run_folder.heartbeat import Vitals, read_heartbeats
from hpcjobs.run_folder.logs import srun_ends
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity
from hpcjobs.run_folder.rank_state import ENDED, RankState
from hpcjobs.run_folder.submission import Launch

LOST = frozenset({RankState.DEAD, RankState.SILENT})


@dataclass(frozen=True)
class RankView:
    """A rank as judged from here.

    `state` is the one in its heartbeat, or dead, over or silent if that cannot be true any more. `live`: it may still
    be running. `rate` is in samples per second since it was ready.
    """

    vitals: Vitals
    state: RankState
    live: bool
    rate: float


def view_ranks(paths: RunPaths, launches: Sequence[Launch], timeout: Callable[[], float]) -> list[RankView]:
    """All ranks of all attempts, ordered by start and rank.

    `launches` are the newest launch and those it joined; `timeout` gives `run.lease_timeout` in seconds; it is
    called only if a rank may be alive, since it has to read the config. If a rank was
    lost and nothing recorded how, srun's messages are searched.
    """
    ranks = [_view(vitals, launches, timeout) for vitals in read_heartbeats(paths.heartbeats)]
    if any(_unexplained(rank) for rank in ranks):
        ends = srun_ends(paths)
        ranks = [_explained(rank, ends) if _unexplained(rank) else rank for rank in ranks]
    return ranks


def _view(vitals: Vitals, launches: Sequence[Launch], timeout: Callable[[], float]) -> RankView:
    state, now = _state(vitals, launches, timeout), time.time()
    live = vitals.ended_at is None and state not in {*ENDED, RankState.OVER, RankState.SILENT}
    end = now if live else vitals.ended_at or vitals.beat_at
    rate = vitals.samples / max(end - vitals.ready_at, 1e-3) if vitals.ready_at and vitals.samples else 0.0
    return RankView(vitals, state, live, rate)


def _state(vitals: Vitals, launches: Sequence[Launch], timeout: Callable[[], float]) -> RankState:
    if vitals.state in ENDED or vitals.ended_at is not None:
        return vitals.state
    if Identity(**vitals.identity).is_dead():
        return RankState.DEAD
    if launches and not any(launch.owns(vitals.attempt) for launch in launches):
        return RankState.OVER
    return RankState.SILENT if time.time() - vitals.beat_at > timeout() else vitals.state


def _unexplained(rank: RankView) -> bool:
    return rank.state in LOST and not rank.vitals.ended


def _explained(rank: RankView, ends: Mapping[str, str]) -> RankView:
    """A lost rank, with srun's report of how it ended if its own guard could not record it."""
    if (how := ends.get(rank.vitals.name)) is None:
        return rank
    vitals = dataclasses.replace(rank.vitals, ended=f"srun: {how}")
    return dataclasses.replace(rank, vitals=vitals, state=RankState.DEAD)
