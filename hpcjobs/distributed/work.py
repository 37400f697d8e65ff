"""What the code of a job gets on a rank."""

from __future__ import annotations

from dataclasses import dataclass

from hpcjobs.config import Config
from hpcjobs.distributed.drain import Drain
from hpcjobs.distributed.rank import Rank
from hpcjobs.distributed.watchdog import Watchdog
from hpcjobs.run_folder.heartbeat import Heartbeat
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the code of a job gets on a rank: the run, the rank, its heartbeat, its drain and its watchdog."""

    paths: RunPaths
    config: Config
    plan: Plan
    rank: Rank
    heartbeat: Heartbeat
    drain: Drain
    watch: Watchdog
