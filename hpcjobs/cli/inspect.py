"""Verbs on a run: status, logs, cancel, merge, score, report, runs."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from hpcjobs.cli.app import app
from hpcjobs.cli.flags import (
    Json,
    RunName,
    Yes,
)


@app.command()
def status(
    run: RunName = "last",
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until the run is over.")] = False,
    json_: Json = False,
) -> None:
    """Progress, rate, time left, the state of each rank, pending reason and first error."""
    from hpcjobs.cli.show_run import show_status
    from hpcjobs.run_folder.paths import find_run

    show_status(find_run(run), watch, json_)


@app.command()
def logs(
    run: RunName = "last",
    rank: Annotated[int | None, typer.Option(help="Only this rank.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new lines.")] = False,
    errors: Annotated[bool, typer.Option("--errors", help="Only errors, with their tracebacks.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="With the control characters that the logs have.")] = False,
    json_: Json = False,
) -> None:
    """The logs of all ranks, merged by time."""
    from hpcjobs.cli.show_run import show_entry
    from hpcjobs.run_folder import logs
    from hpcjobs.run_folder.paths import find_run

    paths = find_run(run)
    if rank is not None:
        logs.check_rank(paths, rank)
    for entry in logs.follow(paths, rank, errors) if follow else logs.entries(paths, rank, errors):
        show_entry(entry, json_, raw)


@app.command()
def cancel(run: RunName, json_: Json = False) -> None:
    """Cancel the jobs of a run. Finished samples are kept; `resume` continues."""
    from hpcjobs.commands.cancel import cancel
    from hpcjobs.run_folder.paths import find_run

    ended = cancel(find_run(run))
    typer.echo(json.dumps({"cancelled": ended}) if json_ else f"cancelled: {', '.join(ended) or 'nothing was running'}")


@app.command("rm")
def remove(run: RunName, yes: Yes = False, json_: Json = False) -> None:
    """Remove a run, its results too. One that is still going is refused: cancel it first."""
    from hpcjobs.cli.ask import confirm
    from hpcjobs.commands.remove import remove

    if not yes:
        confirm(f"Remove {run} and all its results?", "not removed")
    folder = remove(run)
    typer.echo(json.dumps({"removed": str(folder)}) if json_ else f"removed {folder}")


@app.command()
def merge(run: RunName, json_: Json = False) -> None:
    """Merge the journals, check completeness, aggregate the metrics and write the report. Safe at any time."""
    from hpcjobs.cli.show_run import show_end
    from hpcjobs.commands.merge import check_replaced, exit_code, merge_and_report
    from hpcjobs.run_folder.paths import find_run

    paths = find_run(run)
    merged = merge_and_report(paths)
    show_end(paths, json_)
    check_replaced(merged)
    raise typer.Exit(exit_code(paths))


@app.command()
def score(
    run: RunName,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="Instead of the run's metrics; repeatable.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Instead of the run's task.target.")] = None,
    json_: Json = False,
) -> None:
    """Compute metrics again from results.parquet, without generating."""
    from hpcjobs.cli.show_run import show_scores
    from hpcjobs.commands.merge import try_report
    from hpcjobs.merge.score import rescore
    from hpcjobs.plugins import contained
    from hpcjobs.run_folder.metrics_file import MetricsFile
    from hpcjobs.run_folder.paths import find_run

    paths = find_run(run)
    with contained():
        summary = rescore(paths, metric or [], target)
    try_report(paths)
    metrics = MetricsFile.of(summary)
    show_scores(paths, metrics, json_)
    raise typer.Exit(metrics.verdict.exit_code)


@app.command()
def report(run: RunName = "last", json_: Json = False) -> None:
    """Write report.html again."""
    from hpcjobs.report import write_report
    from hpcjobs.run_folder.paths import find_run

    path = write_report(find_run(run))
    typer.echo(json.dumps({"report": str(path)}) if json_ else str(path))


@app.command()
def runs(
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove what killed commands have left under the runs root.")
    ] = False,
    json_: Json = False,
) -> None:
    """List the runs under the runs root, oldest first."""
    from hpcjobs.cli.show_run import show_pruned, show_runs
    from hpcjobs.run_folder.paths import list_runs, runs_root
    from hpcjobs.run_folder.removal import prune as prune_root

    if prune:
        return show_pruned(prune_root(runs_root()), json_)
    return show_runs(list_runs(runs_root()), json_)


@app.command()
def table(
    run: Annotated[list[str] | None, typer.Argument(metavar="RUN...", help="Default: all under the runs root.")] = None,
    format_: Annotated[str, typer.Option("--format", help="rich, md, csv, latex or html.")] = "rich",
    json_: Json = False,
) -> None:
    """The scores of many runs, a row each: values with standard errors."""
    from hpcjobs.cli.show_table import show_table
    from hpcjobs.commands.table import table_of
    from hpcjobs.run_folder.paths import find_run, list_runs, runs_root

    show_table(table_of([find_run(name) for name in run] if run else list_runs(runs_root())), format_, json_)


@app.command()
def show(
    run: RunName = "last",
    id_: Annotated[list[str] | None, typer.Option("--id", help="A sample's id; repeatable.")] = None,
    errors: Annotated[
        bool, typer.Option("--errors", help="Only samples that failed, or that a metric failed on.")
    ] = False,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", metavar="f1<0.5", help="Also completion_tokens>100, finish_reason=length; repeatable."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 10,
    json_: Json = False,
) -> None:
    """Samples of a run: prompt, target, answer and scores."""
    from hpcjobs.cli.show_samples import show_samples
    from hpcjobs.report.show import Wanted, find_samples
    from hpcjobs.run_folder.paths import find_run

    wanted = Wanted(ids=id_ or [], errors=errors, conditions=metric or [], limit=limit)
    show_samples(find_samples(find_run(run), wanted), limit, json_)


@app.command("ls")
def list_names(
    kind: Annotated[str, typer.Argument(metavar="metrics|tasks|data|models|engines|profiles|keys")],
    json_: Json = False,
) -> None:
    """What can be named in a config."""
    from hpcjobs.commands.names import names

    found = names(kind)
    if json_:
        typer.echo(json.dumps({one.name: one.what for one in found}, indent=2))
        return
    width = min(max(len(one.name) for one in found), 40)
    for one in found:
        typer.echo(f"{one.name:<{width}}  {one.what}")
