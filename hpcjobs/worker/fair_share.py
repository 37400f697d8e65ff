"""How many samples a rank may hold at once, so that the others of a small data set have some too."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from pathlib import Path

from hpcjobs.distributed.rank import Rank
from hpcjobs.run_folder.heartbeat import read_heartbeat
from hpcjobs.run_folder.ledger.ledger import Ledger
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity

# Heartbeats are read again after this many seconds, of at most this many ranks: thousands of ranks may do so.
_LOOK_SECONDS, _MOST_READ = 30.0, 32
# Below this part of a share nothing is read at all: joined jobs rarely multiply the ranks by more.
_FAR = 4


class FairShare:
    """This rank's part of what is left: unsettled samples, divided by the ranks that are live or about to start."""

    def __init__(
        self, paths: RunPaths, rank: Rank, ledger: Ledger, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._rank, self._ledger, self._clock = paths.heartbeats, rank, ledger, clock
        self._live, self._looked_at = 1, -math.inf

    def is_held(self, held: int) -> bool:
        """Whether `held` samples are this rank's share or more. Heartbeats are read only where that may matter."""
        left, world = self._ledger.samples_left(), self._rank.walk[1]
        if held * _FAR * world < left:
            return False
        if self._clock() - self._looked_at >= _LOOK_SECONDS:
            self._live, self._looked_at = self._count_live(), self._clock()
        return held * self._live >= left

    def _count_live(self) -> int:
        """The ranks that have not ended, those of joined jobs and other workers included, by some heartbeats of many.

        A rank of this job without a heartbeat is about to start. A worker of an array may wait in the queue for long.
        """
        found = list(self._folder.glob("*.json"))
        read = random.sample(found, min(len(found), _MOST_READ))
        live = round(len(found) * sum(map(_is_live, read)) / max(1, len(read)))
        begun = sum(path.name.startswith(f"{self._rank.attempt}-") for path in found)
        return max(1, live + (0 if self._rank.in_array else max(0, self._rank.world_size - begun)))


def _is_live(path: Path) -> bool:
    vitals = read_heartbeat(path)
    return vitals is None or (vitals.ended_at is None and not Identity(**vitals.identity).is_dead())
