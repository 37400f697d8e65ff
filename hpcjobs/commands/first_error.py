"""The error of a run to show first: one that stands, rather than one that a later start has mended."""

from __future__ import annotations

from collections.abc import Sequence

from hpcjobs.run_folder.liveness import RankView
from hpcjobs.run_folder.metrics_file import MetricsFile
from hpcjobs.run_folder.submission import Launch


def first_error(ranks: Sequence[RankView], launches: Sequence[Launch], merged: MetricsFile | None) -> str | None:
    """What a rank has met, with its number and host; None if none has met anything that stands.

    `launches` are the newest one and those it joined: their ranks come first, and an earlier start's are called so.
    `merged` are the metrics of a run whose samples are complete: an earlier start's error then stands only if samples
    that ended in one are among the results.
    """

    def weight(rank: RankView) -> tuple[bool, bool, bool]:
        """What would come again first; that another rank was lost is no cause of its own."""
        lost = (rank.vitals.first_error or "").startswith("LostRankError")
        return is_earlier(rank, launches), not rank.vitals.fatal, lost

    told = [rank for rank in ranks if rank.vitals.first_error]
    standing = [rank for rank in told if not (is_earlier(rank, launches) and _is_mended(rank, merged))]
    if not standing:
        return None
    first = min(standing, key=weight)
    start = ", of an earlier start" if is_earlier(first, launches) else ""
    return f"rank {first.vitals.rank} on {first.vitals.host}{start}: {first.vitals.first_error}"


def is_earlier(rank: RankView, launches: Sequence[Launch]) -> bool:
    """Whether a rank is of another start than these; never in a run that was started by hand."""
    return bool(launches) and not any(launch.owns(rank.vitals.attempt) for launch in launches)


def _is_mended(rank: RankView, merged: MetricsFile | None) -> bool:
    """Whether the run is complete, and nothing in its results can be of this rank's errors."""
    if merged is None:
        return False
    counts, vitals = merged.counts, rank.vitals
    return not ((counts.errors and vitals.errors) or (counts.metric_errors and vitals.metric_errors))
