"""The page of script runs, and of other runs without samples and steps."""

from __future__ import annotations

import math

from hpcjobs.config import Config
from hpcjobs.report.activity import alive_seconds
from hpcjobs.report.facts import Content, RunFacts, Tile
from hpcjobs.report.headline import Headline, command
from hpcjobs.report.text import count, duration, plural
from hpcjobs.run_folder.attempts import failed_attempts
from hpcjobs.run_folder.copies import Copy, array_size, numbers, view_copies
from hpcjobs.run_folder.liveness import view_ranks
from hpcjobs.run_folder.metrics_file import MetricsFile
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.run_folder.rank_state import RankState
from hpcjobs.run_folder.run_state import RunState
from hpcjobs.run_folder.submission import read_launches, together


def content(paths: RunPaths, config: Config, metrics: MetricsFile | None) -> Content:
    """Nothing but the ranks."""
    return Content()


def headline(facts: RunFacts) -> Headline:
    """The headline, from the ranks of the last attempt."""
    activities, paths = facts.activities, facts.paths
    if copies := _copies(paths, facts.plan):
        return _of_copies(copies, paths, any(activity.live for activity in activities))
    last = activities[-1].attempt if activities else ""
    mine = [activity for activity in activities if activity.attempt == last]
    done, ranks = sum(activity.state == RankState.DONE for activity in mine), facts.plan.shape.ranks
    text = f"{count(done)} of {plural(ranks, 'rank')} ended well."
    if done == ranks:
        return Headline(RunState.COMPLETE, "COMPLETE", text)
    if not mine or any(activity.live for activity in mine):
        return Headline(RunState.PENDING, "NOT FINISHED", text, command("status", paths))
    return Headline(RunState.INCOMPLETE, "FAILED", text, f"{command('logs', paths)} --errors")


def _copies(paths: RunPaths, plan: Plan) -> list[Copy]:
    launches = read_launches(paths)
    if (size := array_size(plan, launches)) is None:
        return []
    ranks = view_ranks(paths, together(launches), lambda: math.inf)
    return view_copies(ranks, size, failed_attempts(paths), launches[-1] if any(rank.live for rank in ranks) else None)


def _of_copies(copies: list[Copy], paths: RunPaths, live: bool) -> Headline:
    done = sum(copy.state == RunState.COMPLETE for copy in copies)
    failed = [copy.index for copy in copies if copy.state == RunState.FAILED]
    text = f"{count(done)} of {len(copies)} copies ended well" + (f"; failed: {numbers(failed)}." if failed else ".")
    if done == len(copies):
        return Headline(RunState.COMPLETE, "COMPLETE", text)
    if live:
        return Headline(RunState.PENDING, "NOT FINISHED", text, command("status", paths))
    return Headline(RunState.INCOMPLETE, "FAILED" if failed else "NOT FINISHED", text, command("resume", paths))


def tiles(facts: RunFacts) -> list[Tile]:
    """How long it took."""
    if not facts.activities:
        return []
    seconds = duration(alive_seconds(facts.activities))
    return [("time", seconds, f"on {plural(len(facts.activities), 'rank')}")]
