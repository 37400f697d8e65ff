"""What the partitions of a job allow: `scontrol show partition`."""

from __future__ import annotations

import re

from hpcjobs.config.checks import slurm_minutes
from hpcjobs.errors import LaunchError
from hpcjobs.launch.programs import run

_SECONDS = 20.0


def most_minutes(partition: str | None) -> int | None:
    """The longest time limit that a job may have in one of these partitions (comma-separated; None: the default one).

    None if there is no limit, or Slurm does not say.
    """
    try:
        done = run(["scontrol", "--oneliner", "show", "partition"], _SECONDS)
    except LaunchError:
        return None
    lines = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in done.stdout.splitlines()]
    wanted = set(partition.split(",")) if partition else set()
    mine = [one for one in lines if (one.get("PartitionName") in wanted if wanted else one.get("Default") == "YES")]
    limits = [_minutes(one.get("MaxTime", "")) for one in mine]
    known = [limit for limit in limits if limit is not None]
    return max(known) if known and len(known) == len(limits) else None


def _minutes(text: str) -> int | None:
    try:
        return slurm_minutes(text)
    except ValueError:  # UNLIMITED
        return None
