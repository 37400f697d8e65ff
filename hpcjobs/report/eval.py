"""The page of eval and generate runs."""

from __future__ import annotations

from collections.abc import Sequence

from hpcjobs.config import Config
from hpcjobs.report.activity import Activity, alive_seconds
from hpcjobs.report.facts import Content, RunFacts, Tile
from hpcjobs.report.headline import Headline, command
from hpcjobs.report.samples import read_samples
from hpcjobs.report.text import count, duration, plural, rate
from hpcjobs.run_folder.metrics_file import MetricsFile
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.run_state import RunState
from hpcjobs.tasks.few_shot import read_pool


def content(paths: RunPaths, config: Config, metrics: MetricsFile | None) -> Content:
    """The rows to show."""
    if paths.results.exists():
        lower = [name for name, one in metrics.metrics.items() if one.get("lower_is_better")] if metrics else []
        return Content(read_samples(paths.results, config.task, read_pool(paths, config.task.few_shot), lower))
    return Content(notes=["results.parquet is gone: no rows can be shown"] if metrics else [])


def headline(facts: RunFacts) -> Headline:
    """The headline, from the merge."""
    metrics, paths, launches = facts.metrics, facts.paths, facts.launches
    if metrics is None:
        return _pending(facts)
    counts, verdict = metrics.counts, metrics.verdict
    if verdict.state == RunState.COMPLETE:
        text = f"Every one of {plural(counts.rows, 'row')} has its result."
        return Headline(RunState.COMPLETE, "COMPLETE", text + _losses(facts.activities))
    text, remark = f"{_sentence(verdict.why)}.", verdict.remark
    if counts.missing:
        text = (
            f"{count(counts.missing)} of {plural(counts.rows, 'sample')} have no result. Every score on this page "
            f"stands on {count(counts.accepted)} samples alone and is not the score of the run."
        )
        remark += f": {count(counts.missing)} of {count(counts.rows)} missing"
        if verdict.state == RunState.FAILED:
            text += f" {_sentence(verdict.why)}."
    if launches and metrics.provenance.merged_at < launches[-1].submitted_at:
        text += " The run was started again after this merge, and this page does not show what came of it."
    verb = command(verdict.verb, paths) if verdict.verb else ""
    return Headline(verdict.state, str(verdict.state).upper(), text, verb, remark)


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


def _losses(activities: Sequence[Activity]) -> str:
    lost = sum(activity.lost for activity in activities)
    verb = "was" if lost == 1 else "were"
    return f" {plural(lost, 'rank')} {verb} lost on the way; others did the rest." if lost else ""


def _pending(facts: RunFacts) -> Headline:
    paths, activities = facts.paths, facts.activities
    done = sum(activity.samples for activity in activities)
    if not activities:
        text = "No rank has started: there are no scores."
        return Headline(RunState.PENDING, "NO RESULTS YET", text, command("status", paths))
    found = f"{plural(done, 'sample')} for {plural(facts.plan.rows, 'row')}"
    text = f"The journals of the ranks have {found}, not merged: there are no scores."
    verb = "status" if any(activity.live for activity in activities) else "merge"
    return Headline(RunState.PENDING, "NO RESULTS YET", text, command(verb, paths))


def tiles(facts: RunFacts) -> list[Tile]:
    """Rows, ranks and speed."""
    counts = facts.metrics.counts if facts.metrics else None
    activities, seconds = facts.activities, alive_seconds(facts.activities)
    samples = sum(activity.samples for activity in activities)
    tokens = sum(activity.tokens for activity in activities)
    found: list[Tile] = []
    if counts:
        found.append(("accepted", count(counts.accepted), f"of {plural(counts.rows, 'row')}"))
        found += [("missing", count(counts.missing), ""), ("errors", count(counts.errors), "")]
        if counts.metric_errors:
            found.append(("metric errors", count(counts.metric_errors), "samples"))
    else:
        found.append(("samples so far", count(samples), f"of {plural(facts.plan.rows, 'row')}"))
    if activities:
        found.append(("time", duration(seconds), f"on {plural(len(activities), 'rank')}"))
    if samples and seconds:
        found.append(("samples/s", rate(samples / seconds), "all ranks"))
        found.append(("tokens/s", rate(tokens / seconds), "completions"))
    return found
