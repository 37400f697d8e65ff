"""Whether the supervisor of a local launch works, seen from any machine."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from hpcjobs.run_folder.liveness import RankView
from hpcjobs.run_folder.metrics_file import MetricsFile
from hpcjobs.run_folder.process import Identity
from hpcjobs.run_folder.submission import Launch


def may_work(launch: Launch, ranks: Sequence[RankView], merges: bool, metrics: MetricsFile | None) -> bool:
    """Whether it is alive, or, on another machine, may be.

    It is not where that machine has started anew since, nor where all its ranks have ended and, in a run that `merges`,
    `metrics` are of a merge after that: both times are of its machine.
    """
    if not launch.supervisor or Identity(**launch.supervisor).is_dead():
        return False
    if Identity(**launch.supervisor).machine == Identity.own().machine:
        return True
    mine = [rank.vitals for rank in ranks if launch.owns(rank.vitals.attempt)]
    if socket.gethostname() in {launch.host, *(one.host for one in mine)} and _other_boot(launch):
        return False
    ends = [one.ended_at for one in mine if one.ended_at is not None]
    if not ends or len(ends) < max(len(mine), launch.ranks):
        return True
    return merges and not (metrics is not None and metrics.provenance.merged_at >= max(ends))


def _other_boot(launch: Launch) -> bool:
    """Whether its machine's id is of another boot, and not only of another pid namespace of this one."""
    boot = Identity.own().machine.partition("/")[0]
    return not boot.startswith("unknown") and str(launch.supervisor["machine"]).partition("/")[0] != boot
