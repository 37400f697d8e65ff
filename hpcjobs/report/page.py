"""The page: everything about a run in one HTML file, for people without access to the cluster."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import hpcjobs
from hpcjobs.config import Config
from hpcjobs.config.resolve import read_config
from hpcjobs.errors import HpcJobsError
from hpcjobs.report import text
from hpcjobs.report.activity import Activity, read_activities
from hpcjobs.report.by_kind import page_of
from hpcjobs.report.environment import environment
from hpcjobs.report.evals import eval_table
from hpcjobs.report.facts import RunFacts
from hpcjobs.report.origin import launch_rows, provenance
from hpcjobs.report.samples import read_missing
from hpcjobs.report.scores import group_tables, score_of
from hpcjobs.report.timeline import draw, summary
from hpcjobs.run_folder.disk import disk_errors
from hpcjobs.run_folder.files import write_whole
from hpcjobs.run_folder.metrics_file import MetricsFile
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.run_folder.submission import read_launches

MOST_RANKS = 4096
MOST_ERRORS = 10


def write_report(paths: RunPaths) -> Path:
    """Write report.html from what is in the run folder, finished or not; returns its path.

    Raises a DiskFullError; an older report is kept.
    """
    page = environment().get_template("page.html").render(_context(_read(paths))).encode("utf-8", "replace")
    with disk_errors(paths.report, need=len(page), next_command=f"hpcjobs report {paths.root}"):
        write_whole(paths.report, page)
    return paths.report


def _read(paths: RunPaths) -> RunFacts:
    plan, notes = Plan.read(paths.plan), list[str]()
    config = Config()
    try:
        config = read_config(paths.config)
    except (HpcJobsError, OSError) as error:
        notes.append(f"config.yaml cannot be read: {error}")
    metrics = MetricsFile.read(paths.metrics) if paths.metrics.exists() else None
    activities, broken = read_activities(paths, config.run.lease_timeout, plan.kind.unit != "answers")
    content = page_of(plan.kind).content(paths, config, metrics)
    notes += [*content.notes, *broken]
    return RunFacts(
        paths=paths,
        plan=plan,
        config=config,
        metrics=metrics,
        launches=read_launches(paths),
        activities=activities,
        content=content,
        notes=notes,
    )


def _context(facts: RunFacts) -> dict[str, object]:
    metrics, activities, plan = facts.metrics, facts.activities, facts.plan
    page, samples = page_of(plan.kind), facts.content.samples
    config = facts.paths.config.read_text(errors="replace") if facts.paths.config.exists() else ""
    return {
        "plan": plan, "verdict": page.headline(facts), "metrics": metrics, "curve": facts.content.curve,
        "evals": eval_table(facts.paths),
        "scores": [score_of(name, value) for name, value in (metrics.metrics if metrics else {}).items()],
        "groups": group_tables(metrics.groups if metrics else {}),
        "warnings": [*(metrics.warnings if metrics else []), *facts.notes],
        "tiles": page.tiles(facts), "timeline": draw(activities),
        "ranks": _ranks(activities), "rank_count": len(activities),
        "rank_errors": [a for a in activities if a.first_error][:MOST_ERRORS],
        "ranks_with_errors": sum(a.first_error is not None for a in activities),
        "rank_summary": summary(activities), "samples": samples, "missing": read_missing(facts.paths.missing),
        "provenance": provenance(facts.paths, plan, metrics, activities), "launches": launch_rows(facts.launches),
        "config": config, "written": text.stamp(time.time()), "version": hpcjobs.__version__,
    }  # fmt: skip


def _ranks(activities: Sequence[Activity]) -> list[dict[str, object]]:
    return [{"activity": activity, **_speeds(activity)} for activity in activities[:MOST_RANKS]]


def _speeds(activity: Activity) -> dict[str, str]:
    seconds = activity.seconds - activity.load
    known = activity.known and activity.seconds > 0
    return {
        "speed": text.rate(activity.tokens / seconds) if seconds > 0 and activity.tokens else "–",
        "busy": text.percent(activity.busy / activity.seconds) if known else "?",
        "load": f"{activity.load:.1f}",
    }
