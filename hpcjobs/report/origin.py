"""The provenance table: rows of (name, value)."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Sequence

from hpcjobs.report.activity import Activity
from hpcjobs.report.text import count, duration, plural, stamp
from hpcjobs.run_folder.metrics_file import MetricsFile
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.run_folder.submission import Launch

_HOSTS_SHOWN = 40
Rows = list[tuple[str, str]]


def provenance(paths: RunPaths, plan: Plan, metrics: MetricsFile | None, activities: Sequence[Activity]) -> Rows:
    """What ran, on what and when; empty values are left out."""
    merged = metrics.provenance if metrics else None
    rows = [("run folder", f"{paths.root} on {platform.node()}"), *_model(plan), *_data(plan), *_code(plan)]
    rows += [
        ("planned shape", str(plan.shape)),
        ("seed", "" if merged is None or merged.seed is None else str(merged.seed)),
    ]
    generation = ", ".join(f"{name} {_plain(value)}" for name, value in (merged.generation if merged else {}).items())
    rows.append(("generation", generation))
    rows += [("hosts", _hosts(activities)), ("planned", stamp(plan.created_at)), *_times(activities)]
    if merged:
        rows += [("merged", stamp(merged.merged_at)), ("merged with", _prefixed("hpcjobs ", merged.merged_with))]
        rows.append(("scored again", stamp(merged.rescored_at)))
    return [(name, value) for name, value in rows if value]


def launch_rows(launches: Sequence[Launch]) -> list[tuple[str, ...]]:
    """Each launch of the run: number, time, executor, jobs, shape, command."""
    return [
        (str(one.number), stamp(one.submitted_at), one.executor, _jobs(one), one.shape, "\n".join(one.commands))
        for one in launches
    ]  # fmt: skip


def _jobs(launch: Launch) -> str:
    return ", ".join(f"{kind} {job_id}" for kind, job_id in launch.jobs.items()) or "in the process of submit"


def _model(plan: Plan) -> Rows:
    if plan.kind.program:
        return [("command", shlex.join(plan.argv))]
    names = {"name": "model", "engine": "engine", "revision": "model revision", "commit": "model commit"}
    names["dtype"] = "dtype"
    rows = [(label, str(getattr(plan.model, key) or "")) for key, label in names.items()]
    return [*rows, ("weights", _prefixed("sha256 ", plan.model.weights_sha256))]


def _data(plan: Plan) -> Rows:
    if not plan.data.name:
        return []
    rows = [("data", f"{plan.data.name}, {plural(plan.rows, 'row')}")]
    rows.append(("data hash", f"sha256 {plan.data.sha256}"))
    if plan.kind.unit != "answers":
        return [*rows, ("columns", ", ".join(plan.data.columns))]
    chunks = f"{plural(plan.chunks, 'chunk')} of at most {plural(plan.chunk_size, 'sample')}"
    return [*rows, ("columns", ", ".join(plan.data.columns)), ("chunks", chunks)]


def _code(plan: Plan) -> Rows:
    code = plan.code
    dirty = " with uncommitted changes" if code.dirty else ""
    commit = f"{code.commit}{dirty} (git, in {code.cwd or '?'})" if code.commit else ""
    rows = [("hpcjobs", code.hpcjobs), ("commit", commit), ("python", code.python)]
    packages = [f"{name} of {package}" for name, package in (code.packages or {}).items()]
    rows.append(("added by", ", ".join(packages)))
    rows.append(("own code", _prefixed("sha256 ", code.snapshot.sha256)))
    return [*rows, ("submitted on", code.host), ("config hash", f"sha256 {plan.config_sha256} (as planned)")]


def _hosts(activities: Sequence[Activity]) -> str:
    hosts = sorted({activity.host for activity in activities})
    more = f" and {count(len(hosts) - _HOSTS_SHOWN)} more" if len(hosts) > _HOSTS_SHOWN else ""
    return ", ".join(hosts[:_HOSTS_SHOWN]) + more


def _times(activities: Sequence[Activity]) -> Rows:
    if not activities:
        return []
    first, last = min(a.start for a in activities), max(a.end for a in activities)
    return [("first rank started", stamp(first)), ("last rank ended", f"{stamp(last)}, {duration(last - first)} later")]


def _plain(value: object) -> str:
    return f"[{', '.join(repr(item) for item in value)}]" if isinstance(value, list) else str(value)


def _prefixed(prefix: str, value: object) -> str:
    return f"{prefix}{value}" if value else ""
