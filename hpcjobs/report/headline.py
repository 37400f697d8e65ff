"""The headline of the page: whether the run is complete."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpcjobs.report.activity import Activity
from hpcjobs.report.text import count, plural
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.run_folder.rank_state import RankState
from hpcjobs.run_folder.run_state import RunState
from hpcjobs.run_folder.submission import Launch


@dataclass(frozen=True)
class Headline:
    """`kind` is complete, incomplete or pending; `command` is the next command ('' if there is none)."""

    kind: RunState
    word: str
    text: str
    command: str = ""


def headline_of(
    paths: RunPaths,
    plan: Plan,
    metrics: Mapping[str, Any] | None,
    activities: Sequence[Activity],
    launches: Sequence[Launch],
) -> Headline:
    """The headline of a run, from its merge; of a script, from its ranks."""
    if plan.job == "script":
        return _of_script(paths, plan, activities)
    if metrics is None and plan.job == "train":
        text = "The training has not been judged yet."
        return Headline(RunState.PENDING, "NO RESULTS YET", text, command("status", paths))
    if metrics is None:
        return _pending(paths, plan, activities)
    counts = metrics["counts"]
    if plan.job == "train":
        return _of_training(paths, counts, metrics["complete"])
    if metrics["complete"]:
        rows = plural(counts["rows"], "row")
        text = f"Every one of {rows} has its result." if counts["rows"] else "There were no rows."
        return Headline(RunState.COMPLETE, "COMPLETE", text + _losses(activities))
    text = (
        f"{count(counts['missing'])} of {plural(counts['rows'], 'sample')} have no result. Every score on this page "
        f"stands on {count(counts['accepted'])} samples alone and is not the score of the run."
    )
    if launches and metrics["provenance"]["merged_at"] < launches[-1].submitted_at:
        text += " The run was started again after this merge, and this page does not show what came of it."
    return Headline(RunState.INCOMPLETE, "INCOMPLETE", text, command("resume", paths))


def _of_training(paths: RunPaths, counts: Mapping[str, Any], complete: bool) -> Headline:
    steps = f"{count(counts['accepted'])} of {plural(counts['rows'], 'step')}"
    if complete:
        return Headline(RunState.COMPLETE, "COMPLETE", f"{steps} are done, and model/ is written.")
    text = f"{steps} are done; there is no final model."
    return Headline(RunState.INCOMPLETE, "INCOMPLETE", text, command("resume", paths))


def _losses(activities: Sequence[Activity]) -> str:
    lost = sum(activity.lost for activity in activities)
    verb = "was" if lost == 1 else "were"
    return f" {plural(lost, 'rank')} {verb} lost on the way; others did the rest." if lost else ""


def _pending(paths: RunPaths, plan: Plan, activities: Sequence[Activity]) -> Headline:
    done = sum(activity.samples for activity in activities)
    if not activities:
        text = "No rank has started: there are no scores."
        return Headline(RunState.PENDING, "NO RESULTS YET", text, command("status", paths))
    found = f"{plural(done, 'sample')} for {plural(plan.rows, 'row')}"
    text = f"The journals of the ranks have {found}, not merged: there are no scores."
    verb = "status" if any(activity.live for activity in activities) else "merge"
    return Headline(RunState.PENDING, "NO RESULTS YET", text, command(verb, paths))


def _of_script(paths: RunPaths, plan: Plan, activities: Sequence[Activity]) -> Headline:
    last = activities[-1].attempt if activities else ""
    mine = [activity for activity in activities if activity.attempt == last]
    done, ranks = sum(activity.state == RankState.DONE for activity in mine), plan.shape.ranks
    text = f"{count(done)} of {plural(ranks, 'rank')} ended well."
    if done == ranks:
        return Headline(RunState.COMPLETE, "COMPLETE", text)
    if not mine or any(activity.live for activity in mine):
        return Headline(RunState.PENDING, "NOT FINISHED", text, command("status", paths))
    return Headline(RunState.INCOMPLETE, "FAILED", text, f"{command('logs', paths)} --errors")


def command(verb: str, paths: RunPaths) -> str:
    """The next command, quoted for a shell."""
    return f"hpcjobs {verb} {shlex.quote(str(paths.root))}"
