"""The page of script runs, and of other runs without samples and steps."""

from __future__ import annotations

from hpcjobs.config import Config
from hpcjobs.report.activity import alive_seconds
from hpcjobs.report.facts import Content, RunFacts, Tile
from hpcjobs.report.headline import Headline, command
from hpcjobs.report.text import count, duration, plural
from hpcjobs.run_folder.metrics_file import MetricsFile
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.rank_state import RankState
from hpcjobs.run_folder.run_state import RunState


def content(paths: RunPaths, config: Config, metrics: MetricsFile | None) -> Content:
    """Nothing but the ranks."""
    return Content()


def headline(facts: RunFacts) -> Headline:
    """The headline, from the ranks of the last attempt."""
    activities, paths = facts.activities, facts.paths
    last = activities[-1].attempt if activities else ""
    mine = [activity for activity in activities if activity.attempt == last]
    done, ranks = sum(activity.state == RankState.DONE for activity in mine), facts.plan.shape.ranks
    text = f"{count(done)} of {plural(ranks, 'rank')} ended well."
    if done == ranks:
        return Headline(RunState.COMPLETE, "COMPLETE", text)
    if not mine or any(activity.live for activity in mine):
        return Headline(RunState.PENDING, "NOT FINISHED", text, command("status", paths))
    return Headline(RunState.INCOMPLETE, "FAILED", text, f"{command('logs', paths)} --errors")


def tiles(facts: RunFacts) -> list[Tile]:
    """How long it took."""
    if not facts.activities:
        return []
    seconds = duration(alive_seconds(facts.activities))
    return [("time", seconds, f"on {plural(len(facts.activities), 'rank')}")]
