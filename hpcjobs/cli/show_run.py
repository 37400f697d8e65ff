"""Show the status, progress and results of runs, as text or JSON."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import typer

from hpcjobs.cli.terminal import cut_lines, raw, visible
from hpcjobs.commands.runs import look_at
from hpcjobs.commands.status import Status, next_command, read_status
from hpcjobs.errors import HpcJobsError, NewerPlanError
from hpcjobs.metrics.format import group_lines, number_text, score_lines
from hpcjobs.run_folder.copies import Copy, numbers
from hpcjobs.run_folder.job_kinds import find_kind
from hpcjobs.run_folder.logs import Entry
from hpcjobs.run_folder.metrics_file import MetricsFile, TrainFacts
from hpcjobs.run_folder.paths import RunPaths, runs_root
from hpcjobs.run_folder.run_state import RunState
from hpcjobs.run_folder.verdict import Verdict
from hpcjobs.training.evals import ModelEval


def print_error(text: str = "") -> None:
    """Print a line to stderr."""
    typer.echo(text, err=True)


def echo_hints(paths: RunPaths) -> None:
    """After Ctrl-C: the run goes on, and the commands to see or cancel it."""
    print_error(f"\ninterrupted: the run goes on; next: hpcjobs status {paths.root}, or hpcjobs cancel {paths.root}")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def status_line(status: Status) -> str:
    """A status in one line: state, progress, rate, time left."""
    parts = [str(status.state)]
    kind = find_kind(status.job)
    if kind.unit != "none":
        share = f" ({status.done / status.rows:.0%})" if status.rows else ""
        parts.append(f"{status.done}/{status.rows} {kind.counted}{share}")
    if status.copies:
        done = sum(copy.state == RunState.COMPLETE for copy in status.copies)
        bad = sum(copy.state == RunState.FAILED for copy in status.copies)
        parts.append(f"{done}/{len(status.copies)} copies" + (f", {bad} failed" if bad else ""))
    if not status.over:
        live = sum(rank.live for rank in status.ranks)
        parts.append(f"{live} rank{'s' if live != 1 else ''} live" if live or status.done else "no rank has started")
        if status.attempts and status.attempts[-1].again and not status.copies:
            last = status.attempts[-1]
            parts.append(f"restart {last.restart + 1} of {last.restarts} after {last.cause}")
        if status.rate:
            parts.append(f"{status.rate:.3g}/s, {_duration(status.eta)} left")
        parts += [f"{_duration(status.age)} ago, as the files have it"] if status.age is not None else []
        parts += [
            f"{job.state.lower()}: {job.reason}" for kind, job in status.jobs.items() if kind == "work" and job.reason
        ]
    return ", ".join(parts)


def progress(paths: RunPaths, as_json: bool) -> Callable[[Status], None]:
    """A function that shows a status on stderr: in place on a terminal, else a line per change, at most every 10 s."""
    last: dict[str, Any] = {"text": "", "at": 0.0}

    def show(status: Status) -> None:
        text = status_line(status)
        if as_json:
            return
        if sys.stderr.isatty():
            raw(sys.stderr).write(f"\r\033[K{cut_lines(visible(text))}" + ("\n" if status.over else ""))
        elif text != last["text"] and (status.over or time.monotonic() - last["at"] > 10):
            print_error(text)
            last.update(text=text, at=time.monotonic())

    return show


def show_status(paths: RunPaths, watch: bool, as_json: bool) -> None:
    """Show the status of a run; with `watch`, every two seconds until it is over."""
    while True:
        status = read_status(paths)
        if watch and sys.stdout.isatty():
            print("\033[2J\033[H", end="", file=raw(sys.stdout), flush=True)
        typer.echo(json.dumps(status.values()) if as_json else _status_text(status))
        if not watch or status.over:
            return
        time.sleep(2.0)


def _status_text(status: Status) -> str:
    lines = [f"run     {status.run}  ({status.folder})", f"state   {status_line(status)}"]
    for kind, job in status.jobs.items():
        detail = ", ".join(
            filter(None, [job.state, job.reason, job.nodes, f"exit {job.exit_code}" if job.exit_code else ""])
        )
        lines.append(f"job     {job.job_id} ({kind}): {detail} [{job.source}]")
    if status.ranks:
        last = "last step" if find_kind(status.job).unit == "steps" else "last sample"
        lines.append(f"rank  attempt            host          state       done  errors    rate  {last}")
    for rank in status.ranks:
        v, errors = rank.vitals, rank.vitals.errors + rank.vitals.metric_errors
        lines.append(
            f"{v.rank:>4}  {v.attempt:<17}  {v.host[:12]:<12}  {rank.state:<9} {v.samples:>6}  {errors:>6}  "
            f"{rank.rate:>6.3g}  {'' if v.last_index is None else v.last_index}"
        )
    lines += copy_lines(status.copies)
    if status.step:
        lines.append(f"step    {step_text(status.step)}")
    lines += [f"note    {note}" for note in status.notes]
    if status.first_error:
        lines.append(f"error   {status.first_error}")
    if status.metrics:
        lines += ["", metrics_text(status.metrics)]
    lines += eval_lines(status.evals)
    return "\n".join(lines)


def copy_lines(copies: Sequence[Copy]) -> list[str]:
    """The copies of an array of programs, a line for each state."""
    states = dict.fromkeys(copy.state for copy in copies)
    by_state = {state: [copy.index for copy in copies if copy.state == state] for state in states}
    return [f"copies  {len(found)} of {len(copies)} {state}: {numbers(found)}" for state, found in by_state.items()]


def step_text(step: Mapping[str, float]) -> str:
    """The values of the last step of a train run."""
    names = ("loss", "eval_loss", "learning_rate", "grad_norm", "tokens_per_s", "epoch")
    values = ", ".join(f"{name.replace('_per_s', '/s')} {step[name]:.4g}" for name in names if step[name] is not None)
    each = step["tokens_per_s"] / step["world_size"]
    return f"{step['step']}: {values}; {each:.4g} tokens/s a rank"


def eval_lines(evals: Sequence[ModelEval]) -> list[str]:
    """The evals of a train run's models, one line each."""
    lines = []
    for one in evals:
        scores = ", ".join(f"{name} {value:.4f}" for name, value in one.metrics.items() if value is not None)
        which = "model/" if one.step is None else f"step {one.step}"
        lines.append(f"eval    {which}: {', '.join(filter(None, [one.state, scores]))}  {one.run}")
        if one.reason:
            lines.append(f"        {one.reason}")
    return lines


def show_entry(entry: Entry, as_json: bool, as_is: bool = False) -> None:
    """Show a log entry; `as_is` with the control characters that it has."""
    text = json.dumps(dataclasses.asdict(entry)) if as_json else entry.text
    typer.echo(text, file=raw(sys.stdout) if as_is else None)


def show_end(paths: RunPaths, as_json: bool) -> None:
    """Show the results of a finished run: metrics, counts, files."""
    status = read_status(paths)
    if as_json:
        values = status.values()
        typer.echo(json.dumps({name: values[name] for name in ("run", "folder", "state", "notes", "metrics")}))
    elif status.metrics:
        _print_scores(paths, status.metrics, status)
    else:
        typer.echo("\n".join([f"{status.state}  {paths.root}", *copy_lines(status.copies)]))
        if status.state == RunState.FAILED:
            print_error(f"error: {status.first_error or 'no rank said why'}\nnext: hpcjobs logs --errors {paths.root}")


def show_scores(paths: RunPaths, metrics: MetricsFile, as_json: bool) -> None:
    """Show metrics, counts and paths."""
    if as_json:
        typer.echo(json.dumps({"run": paths.root.name, "folder": str(paths.root), "metrics": metrics.values}))
    else:
        _print_scores(paths, metrics, read_status(paths))


def _print_scores(paths: RunPaths, metrics: MetricsFile, status: Status) -> None:
    for line in (metrics_text(metrics), *eval_lines(status.evals)):
        typer.echo(line)
    typer.echo(f"folder  {paths.root}")
    if paths.report.exists():
        typer.echo(f"report  {paths.report}")
    verdict = metrics.verdict
    if verdict.state == RunState.COMPLETE:
        return
    if metrics.counts.missing and verdict.state == RunState.INCOMPLETE and paths.missing.exists():
        print_error(f"incomplete: see {paths.missing}; {_next(verdict, paths, status)}")
    else:
        print_error(f"{verdict.state}: {verdict.why}; {_next(verdict, paths, status)}")


def _next(verdict: Verdict, paths: RunPaths, status: Status) -> str:
    return next_command(verdict, paths) if status.over else f"next: hpcjobs status {paths.root}"


def metrics_text(metrics: MetricsFile) -> str:
    """Metrics with intervals, the counts behind them, and groups; incomplete scores are marked."""
    counts = metrics.counts
    if metrics.train:
        return _train_text(metrics, metrics.train)
    lines = list(score_lines(metrics.metrics, _remark(metrics)))
    line = f"samples {counts.accepted} of {counts.rows}, missing {counts.missing}, errors {counts.errors}"
    line += f", metric errors {counts.metric_errors}" if counts.metric_errors else ""
    line += f"; tokens {counts.prompt_tokens} in, {counts.completion_tokens} out"
    lines += [line, *(f"warning: {text}" for text in metrics.warnings)]
    return "\n".join([*lines, *group_lines(metrics.groups)])


def _remark(metrics: MetricsFile) -> str:
    remark = metrics.verdict.remark
    return f"  {remark}" if remark else ""


def _train_text(metrics: MetricsFile, train: TrainFacts) -> str:
    counts = metrics.counts
    lines = list(score_lines(metrics.metrics, _remark(metrics)))
    lines.append(f"steps   {counts.accepted} of {counts.rows}, {counts.tokens} tokens")
    speed = f"{train.tokens_per_s:.4g} tokens/s, {train.tokens_per_s_per_rank:.4g} a rank"
    lines.append(f"speed   {speed}; {train.steps_run_again} steps run again")
    of = f", of step {train.model_step}" if train.model_step not in (None, counts.rows) else ""
    lines += [f"{name:<8}{path}{of}" for name, path in (("model", train.model), ("adapter", train.adapter)) if path]
    return "\n".join([*lines, *(f"warning: {text}" for text in metrics.warnings)])


def show_pruned(names: Sequence[str], as_json: bool) -> None:
    """Show what was removed from the runs root."""
    if as_json:
        typer.echo(json.dumps({"removed": list(names)}))
    else:
        typer.echo("\n".join(f"removed {name}" for name in names) or f"nothing to remove in {runs_root()}")


def show_runs(runs: Sequence[RunPaths], as_json: bool) -> None:
    """Show runs, one line each; those that cannot be read too, with the file."""
    if not runs and not as_json:
        print_error(f"no runs in {runs_root()}")
    unheard = ""
    for paths, status in look_at(runs):
        if isinstance(status, HpcJobsError):
            typer.echo(json.dumps(_damaged(paths, status)) if as_json else _damaged_line(paths, status))
            continue
        typer.echo(json.dumps(_run_values(status)) if as_json else _run_line(paths, status))
        if any(job.source == "unreachable" for job in status.jobs.values()):
            unheard = unheard or status.notes[0]
    if unheard:
        print_error(f"note    {unheard}; shown is what the files say; next: scontrol ping")


def _run_values(status: Status) -> dict[str, Any]:
    return {
        "run": status.run,
        "job": status.job,
        "state": status.state,
        "why": status.metrics.verdict.why if status.metrics else "",
        "rows": status.rows,
        "done": status.done,
        "age": status.age,
        "folder": status.folder,
    }


def _damaged(paths: RunPaths, error: HpcJobsError) -> dict[str, Any]:
    return {"run": paths.root.name, "state": _unread(error), "why": str(error), "folder": str(paths.root)}


def _damaged_line(paths: RunPaths, error: HpcJobsError) -> str:
    return f"{_stamp(paths)}  {paths.root.name:<44} {_unread(error):<8} {error}"


def _unread(error: HpcJobsError) -> str:
    return "newer" if isinstance(error, NewerPlanError) else "damaged"


def _run_line(paths: RunPaths, status: Status) -> str:
    metrics = status.metrics.metrics if status.metrics else {}
    scores = "  ".join(
        f"{name} {number_text(value['value'])}" for name, value in metrics.items() if value["value"] is not None
    )
    return f"{_stamp(paths)}  {status.run:<44} {status.job:<8} {status_line(status)}  {scores}"


def _stamp(paths: RunPaths) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(paths.plan.stat().st_mtime))
