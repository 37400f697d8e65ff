"""What a job is given to work with."""

from __future__ import annotations

from dataclasses import dataclass

from hpcjobs.config import Config
from hpcjobs.distributed.drain import Drain
from hpcjobs.distributed.rank import Rank
from hpcjobs.distributed.watchdog import Watch
from hpcjobs.run_folder.heartbeat import Heartbeat
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a job is given: the run, this rank, and where to tell how it goes."""

    paths: RunPaths
    config: Config
    plan: Plan
    rank: Rank
    heart: Heartbeat
    drain: Drain
    watch: Watch
