"""The page: everything about a run in one HTML file, for people without access to the cluster."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hpcjobs
from hpcjobs.config import Config
from hpcjobs.config.resolve import read_config
from hpcjobs.errors import HpcJobsError
from hpcjobs.report import text
from hpcjobs.report.activity import Activity, alive_seconds, read_activities
from hpcjobs.report.curve import CurveDrawing, draw_curve
from hpcjobs.report.environment import environment
from hpcjobs.report.evals import eval_table
from hpcjobs.report.headline import headline_of
from hpcjobs.report.origin import launch_rows, provenance
from hpcjobs.report.samples import Samples, read_missing, read_samples
from hpcjobs.report.scores import group_tables, score_of
from hpcjobs.report.timeline import draw, summary
from hpcjobs.run_folder.disk import disk_errors
from hpcjobs.run_folder.files import read_json, write_whole
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.run_folder.submission import Launch, read_launches
from hpcjobs.tasks.few_shot import read_pool
from hpcjobs.training.steps import read_curve

MOST_RANKS = 4096
MOST_ERRORS = 10


@dataclass(frozen=True)
class RunFacts:
    """The content of a run folder; `notes` lists what could not be read."""

    paths: RunPaths
    plan: Plan
    config: Config
    metrics: dict[str, Any] | None
    launches: list[Launch]
    activities: list[Activity]
    samples: Samples | None
    notes: list[str]
    curve: CurveDrawing | None = None


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
    metrics = read_json(paths.metrics) if paths.metrics.exists() else None
    activities, broken = read_activities(paths, config.run.lease_timeout, plan.job in ("script", "train"))
    if plan.job == "train":
        steps = read_curve(paths).steps
        curve = draw_curve([steps[step] for step in sorted(steps)])
        return RunFacts(paths, plan, config, metrics, read_launches(paths), activities, None, notes + broken, curve)
    samples = None
    if paths.results.exists():
        samples = read_samples(paths.results, config.task, read_pool(paths, config.task.few_shot))
    elif metrics:
        notes.append("results.parquet is gone: no rows can be shown")
    return RunFacts(paths, plan, config, metrics, read_launches(paths), activities, samples, notes + broken)


def _context(facts: RunFacts) -> dict[str, Any]:
    metrics, activities, plan = facts.metrics, facts.activities, facts.plan
    verdict = headline_of(facts.paths, plan, metrics, activities, facts.launches)
    config = facts.paths.config.read_text(errors="replace") if facts.paths.config.exists() else ""
    return {
        "plan": plan, "verdict": verdict, "metrics": metrics, "curve": facts.curve, "evals": eval_table(facts.paths),
        "scores": [score_of(name, value) for name, value in (metrics["metrics"] if metrics else {}).items()],
        "groups": group_tables((metrics or {}).get("groups", {})),
        "warnings": [*(metrics["warnings"] if metrics else []), *facts.notes],
        "tiles": _tiles(facts), "timeline": draw(activities),
        "ranks": _ranks(activities), "rank_count": len(activities),
        "rank_errors": [a for a in activities if a.first_error][:MOST_ERRORS],
        "ranks_with_errors": sum(a.first_error is not None for a in activities),
        "rank_summary": summary(activities), "samples": facts.samples, "missing": read_missing(facts.paths.missing),
        "provenance": provenance(facts.paths, plan, metrics, activities), "launches": launch_rows(facts.launches),
        "config": config, "written": text.stamp(time.time()), "version": hpcjobs.__version__,
    }  # fmt: skip


def _tiles(facts: RunFacts) -> list[tuple[str, str, str]]:
    """(label, value, detail) of the most important numbers."""
    counts = (facts.metrics or {}).get("counts", {})
    activities, seconds = facts.activities, alive_seconds(facts.activities)
    samples = sum(activity.samples for activity in activities)
    tokens = sum(activity.tokens for activity in activities)
    tiles: list[tuple[str, str, str]] = []
    if facts.plan.job == "train":
        return _train_tiles(facts, seconds)
    if counts:
        tiles.append(("accepted", text.count(counts["accepted"]), f"of {text.plural(counts['rows'], 'row')}"))
        tiles += [(name, text.count(counts[name]), "") for name in ("missing", "errors")]
    elif facts.plan.job != "script":
        tiles.append(("samples so far", text.count(samples), f"of {text.plural(facts.plan.rows, 'row')}"))
    if activities:
        tiles.append(("time", text.duration(seconds), f"on {text.plural(len(activities), 'rank')}"))
    if samples and seconds:
        tiles.append(("samples/s", text.rate(samples / seconds), "all ranks"))
        tiles.append(("tokens/s", text.rate(tokens / seconds), "completions"))
    return tiles


def _train_tiles(facts: RunFacts, seconds: float) -> list[tuple[str, str, str]]:
    tiles = []
    if facts.metrics:
        counts, train = facts.metrics["counts"], facts.metrics["train"]
        tiles += [("steps", text.count(counts["accepted"]), f"of {text.count(counts['rows'])}")]
        for name, value in facts.metrics["metrics"].items():
            tiles.append((name.replace("_", " "), f"{value['value']:.4g}", f"step {value['step']}"))
        tiles += [("tokens/s", text.rate(train["tokens_per_s"]), f"{text.rate(train['tokens_per_s_per_rank'])} a rank")]
    if facts.activities:
        tiles.append(("time", text.duration(seconds), f"on {text.plural(len(facts.activities), 'rank')}"))
    return tiles


def _ranks(activities: Sequence[Activity]) -> list[dict[str, Any]]:
    return [{"activity": activity, **_speeds(activity)} for activity in activities[:MOST_RANKS]]


def _speeds(activity: Activity) -> dict[str, str]:
    seconds = activity.seconds - activity.load
    known = activity.known and activity.seconds > 0
    return {
        "speed": text.rate(activity.tokens / seconds) if seconds > 0 and activity.tokens else "–",
        "busy": text.percent(activity.busy / activity.seconds) if known else "?",
        "load": f"{activity.load:.1f}",
    }
