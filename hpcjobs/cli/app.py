"""The verbs. A handler reads its flags, imports its stage, and says what came of it."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

import hpcjobs
from hpcjobs.cli.flags import (
    Array,
    Comment,
    Cpus,
    Executor,
    Gpus,
    GpusPerNode,
    Json,
    Mem,
    Nodes,
    Ntasks,
    RunName,
    Sbatch,
    Time,
    WaitFlag,
    Word,
    Yes,
)
from hpcjobs.errors import HpcJobsError, UsageError

app = typer.Typer(
    name="hpcjobs", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Slurm batch jobs for models and data: complete, scored results whatever dies on the way.\n\n"
    "RUN is a run folder, a name under the runs root (HPCJOBS_RUNS, default runs/), or 'last'.\n\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage or config, 3 finished but incomplete, 130 interrupted.",
)  # fmt: skip

# What typer raises for wrong words: click's own class, or that of the copy of click in newer typers.
_WrongWords: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def _flags(values: dict[str, Any]) -> dict[str, Any]:
    """The flags that name config keys, out of a handler's locals."""
    from hpcjobs.commands.submit import FLAGS

    return {name: values.get(name) for name in FLAGS}


@app.command(context_settings={"ignore_unknown_options": False})
def submit(
    job: Annotated[str, typer.Argument(metavar="eval|generate|train|script", help="What each rank does.")],
    argv: Annotated[
        list[str] | None, typer.Argument(metavar="-- PROGRAM ARGS", help="For script: prog.py args, or -m module args.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML; default: the shipped configs/<job>.yaml.")
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="One config value; repeatable.")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Site profile: configs/clusters/<name>.yaml.")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="The run folder; default: runs root and a made-up name.")] = None,
    name: Annotated[str | None, typer.Option(help="The run's name under the runs root.")] = None,
    model: Annotated[str | None, typer.Option(help="model.name: asset, folder or hub id.")] = None,
    data: Annotated[str | None, typer.Option(help="data.name: asset, file, folder or hub id.")] = None,
    max_samples: Annotated[int | None, typer.Option(min=0, help="Only the first N rows.")] = None,
    nodes: Nodes = None,
    gpus: Gpus = None,
    gpus_per_node: GpusPerNode = None,
    ntasks_per_node: Ntasks = None,
    cpus_per_task: Cpus = None,
    array: Array = None,
    mem: Mem = None,
    time: Time = None,
    partition: Word = None,
    account: Word = None,
    qos: Word = None,
    constraint: Word = None,
    reservation: Word = None,
    exclusive: Annotated[bool | None, typer.Option("--exclusive", help="Whole nodes.")] = None,
    requeue: Annotated[
        bool | None, typer.Option("--requeue/--no-requeue", help="Start again after preemption or a node failure.")
    ] = None,
    executor: Executor = None,
    sbatch: Sbatch = None,
    comment: Comment = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print plan and exact scripts; touch neither queue nor disk.")
    ] = False,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Write the run folder, queue nothing: for sbatch/*.sbatch by hand.")
    ] = False,
    wait: WaitFlag = False,
    yes: Yes = False,
    json_: Json = False,
) -> None:
    """Plan a run, show the plan, and queue it: its ranks, and the merge job behind them."""
    from hpcjobs.cli import show_run as screen
    from hpcjobs.commands.submit import Order, draft_of

    extra = [*(sbatch or ()), *([f"comment={comment}"] if comment is not None else ())]
    flags = _flags(locals())
    order = Order(job, config, profile, sets or [], flags, extra, argv or [], run_dir)
    draft, places = draft_of(order)
    screen.show_plan(draft, places if dry_run else None, json_ and dry_run)
    if not dry_run:
        _go(draft, plan_only, wait, yes, json_)


def _go(draft: Any, plan_only: bool, wait: bool, yes: bool, json_: bool) -> None:
    from hpcjobs.cli import show_run as screen
    from hpcjobs.commands.submit import start

    if plan_only:
        draft.write()
        return screen.say_planned(draft, json_)
    if not yes and sys.stdin.isatty() and sys.stderr.isatty():
        typer.confirm("Queue it?", default=True, abort=True, err=True)
    screen.say_launched(draft.paths, start(draft), json_)
    if wait or draft.config.cluster.executor == "debug":
        _wait(draft.paths, json_)
    return None


def _wait(paths: Any, json_: bool) -> None:
    from hpcjobs.cli import show_run as screen
    from hpcjobs.commands.submit import wait

    try:
        code = wait(paths, screen.progress(paths, json_))
    except KeyboardInterrupt:
        screen.say_left(paths)
        raise typer.Exit(130) from None
    screen.show_end(paths, json_)
    raise typer.Exit(code)


@app.command()
def status(
    run: RunName = "last",
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until it is over.")] = False,
    json_: Json = False,
) -> None:
    """Done and total, rate, time left, each rank's state, why it is pending, the first error."""
    from hpcjobs.cli import show_run as screen
    from hpcjobs.run_folder.paths import find_run

    screen.show_status(find_run(run), watch, json_)


@app.command()
def logs(
    run: RunName = "last",
    rank: Annotated[int | None, typer.Option(help="Only this rank.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    errors: Annotated[bool, typer.Option("--errors", help="Only errors, with their tracebacks.")] = False,
    json_: Json = False,
) -> None:
    """The ranks' logs, merged by time."""
    from hpcjobs.cli.show_run import show_entry
    from hpcjobs.run_folder import logs
    from hpcjobs.run_folder.paths import find_run

    paths = find_run(run)
    for entry in logs.follow(paths, rank, errors) if follow else logs.entries(paths, rank, errors):
        show_entry(entry, json_)


@app.command()
def cancel(run: RunName, json_: Json = False) -> None:
    """End the jobs of this run; what is finished stays, and `resume` goes on from there."""
    from hpcjobs.commands.cancel import cancel
    from hpcjobs.run_folder.paths import find_run

    ended = cancel(find_run(run))
    typer.echo(json.dumps({"cancelled": ended}) if json_ else f"cancelled: {', '.join(ended) or 'nothing was running'}")


@app.command()
def resume(
    run: RunName,
    nodes: Nodes = None,
    gpus: Gpus = None,
    gpus_per_node: GpusPerNode = None,
    ntasks_per_node: Ntasks = None,
    cpus_per_task: Cpus = None,
    array: Array = None,
    mem: Mem = None,
    time: Time = None,
    partition: Word = None,
    account: Word = None,
    qos: Word = None,
    constraint: Word = None,
    reservation: Word = None,
    executor: Executor = None,
    sbatch: Sbatch = None,
    wait: WaitFlag = False,
    yes: Yes = False,
    json_: Json = False,
) -> None:
    """Run what is missing, on the same shape or another one."""
    from hpcjobs.cli import show_run as screen
    from hpcjobs.commands.submit import resume
    from hpcjobs.run_folder.paths import find_run

    paths, flags = find_run(run), _flags(locals())
    launched = resume(paths, flags, sbatch or [], lambda text: typer.echo(text, err=True))
    if launched:
        screen.say_launched(paths, launched, json_)
    if launched is None or wait:
        _wait(paths, json_)


@app.command()
def join(
    run: RunName,
    nodes: Nodes = None,
    gpus: Gpus = None,
    gpus_per_node: GpusPerNode = None,
    ntasks_per_node: Ntasks = None,
    cpus_per_task: Cpus = None,
    array: Array = None,
    mem: Mem = None,
    time: Time = None,
    partition: Word = None,
    account: Word = None,
    qos: Word = None,
    constraint: Word = None,
    reservation: Word = None,
    executor: Executor = None,
    sbatch: Sbatch = None,
    wait: WaitFlag = False,
    json_: Json = False,
) -> None:
    """Add ranks to a run that is going on: more nodes, another partition, an array of single-node workers."""
    from hpcjobs.cli import show_run as screen
    from hpcjobs.commands.submit import join
    from hpcjobs.run_folder.paths import find_run

    paths, flags = find_run(run), _flags(locals())
    screen.say_launched(paths, join(paths, flags, sbatch or [], lambda text: typer.echo(text, err=True)), json_)
    if wait:
        _wait(paths, json_)


@app.command()
def merge(run: RunName, json_: Json = False) -> None:
    """Merge the journals, prove completeness, fold the metrics, write the report. Safe at any time."""
    from hpcjobs.cli import show_run as screen
    from hpcjobs.commands.finish import exit_code, merge_and_report
    from hpcjobs.run_folder.paths import find_run

    paths = find_run(run)
    merged = merge_and_report(paths)
    screen.show_end(paths, json_)
    raise typer.Exit(exit_code(merged))


@app.command()
def score(
    run: RunName,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="Instead of the run's metrics; repeatable.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Instead of the run's task.target.")] = None,
    json_: Json = False,
) -> None:
    """Metrics anew from results.parquet, without generating."""
    from hpcjobs.cli import show_run as screen
    from hpcjobs.commands.finish import try_report
    from hpcjobs.merge.score import rescore
    from hpcjobs.run_folder.paths import find_run

    paths = find_run(run)
    summary = rescore(paths, metric or [], target)
    try_report(paths)
    screen.show_scores(paths, summary, json_)
    raise typer.Exit(0 if summary["complete"] else 3)


@app.command()
def report(run: RunName = "last", json_: Json = False) -> None:
    """Write report.html again."""
    from hpcjobs.report import write_report
    from hpcjobs.run_folder.paths import find_run

    path = write_report(find_run(run))
    typer.echo(json.dumps({"report": str(path)}) if json_ else str(path))


@app.command()
def verify(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML, as for submit.")],
    world_sizes: Annotated[str, typer.Option(metavar="1,2,4", help="Numbers of ranks; the first is the measure.")],
    job: Annotated[str, typer.Option(metavar="eval|generate", help="What each rank does.")] = "eval",
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="One config value; repeatable.")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Site profile: configs/clusters/<name>.yaml.")] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="The runs' folder, for w1, w2...; default: runs root and a made-up name.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="model.name: asset, folder or hub id.")] = None,
    data: Annotated[str | None, typer.Option(help="data.name: asset, file, folder or hub id.")] = None,
    max_samples: Annotated[int | None, typer.Option(min=0, help="Only the first N rows.")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Nodes of the world sizes that divide by it.")] = None,
    time: Time = None,
    partition: Word = None,
    account: Word = None,
    qos: Word = None,
    executor: Annotated[str | None, typer.Option(help="auto, slurm or local.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="How many flips are printed; --json has all.")] = 10,
    yes: Yes = False,
    json_: Json = False,
) -> None:
    """Run the same job at several world sizes and compare sample by sample; all run folders stay.

    On GPUs where the config asks for some, else on CPUs. Exit code 0: every result is the same; 1: a sample differs,
    or a run failed; 3: a run is incomplete.
    """
    from hpcjobs.cli import show_run as screen
    from hpcjobs.commands import verify as flow
    from hpcjobs.commands.submit import Order

    order = Order(job, config, profile, sets or [], _flags(locals()), [], [], run_dir)
    drafts = flow.plan_runs(order, flow.parse_sizes(world_sizes))
    screen.show_sizes(drafts)
    if not yes and sys.stdin.isatty() and sys.stderr.isatty():
        typer.confirm("Run them?", default=True, abort=True, err=True)
    verdict = flow.judge(_run_all(drafts, json_), order, limit)
    screen.show_verdict(verdict, json_)
    raise typer.Exit(verdict.exit_code())


def _run_all(drafts: Any, json_: bool) -> Any:
    from hpcjobs.cli import show_run as screen
    from hpcjobs.commands.verify import run_all, still_going

    folders = [draft.paths for draft in drafts.values()]
    try:
        return run_all(drafts, lambda paths: screen.progress(paths, json_))
    except KeyboardInterrupt:
        for paths in still_going(folders):
            screen.say_left(paths)
        raise typer.Exit(130) from None


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="The run to hold against: folder, name, or 'last'.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The other run, of the same kind.")],
    gate: Annotated[
        list[str] | None, typer.Option(metavar="METRIC=0.01", help="By how much it may get worse; repeatable.")
    ] = None,
    allow_incomplete: Annotated[
        bool, typer.Option("--allow-incomplete", help="Gates go by the samples or steps that there are.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="All flips, or all common steps, one JSON object a line.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of train runs: both curves and all values as an HTML page.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="How many flips are printed; --json has all.")] = 10,
    json_: Json = False,
) -> None:
    """B against A. Of evals: the difference of each metric on the samples that both have, and what flipped. Of train
    runs: losses, speed, the config keys that differ, the curves step by step; merged or not, going on or not.

    A train run's gates are loss, eval_loss, best_eval_loss (by how much it may rise) and tokens_per_s (fall).

    Exit code 1: a metric of B is worse than its gate allows; 3: a gate cannot be decided, as a run is incomplete.
    """
    from hpcjobs.cli import show_run as screen
    from hpcjobs.run_folder.job_kinds import kind_of_both
    from hpcjobs.run_folder.paths import find_run

    runs = find_run(a), find_run(b)
    if kind_of_both(*runs) == "steps":
        return _compare_trainings(*runs, gate or [], allow_incomplete, (out, report), json_)
    if report is not None:
        raise UsageError("--report is for two train runs: an eval's own page is written by hpcjobs report RUN")
    from hpcjobs.compare.eval_findings import find

    findings = find(*runs, gate or [], allow_incomplete, out)
    screen.show_findings(findings, limit, json_)
    raise typer.Exit(findings.exit_code())


def _compare_trainings(
    a: Any, b: Any, gates: list[str], partly: bool, files: tuple[Path | None, Path | None], json_: bool
) -> None:
    from hpcjobs.cli import show_run as screen
    from hpcjobs.compare.overlay import write_overlay
    from hpcjobs.compare.train_findings import find_trainings

    out, report = files
    findings = find_trainings(a, b, gates, partly, out, report)
    if report is not None:
        write_overlay(report, findings)
    screen.show_trainings(findings, json_)
    raise typer.Exit(findings.exit_code())


@app.command()
def runs(json_: Json = False) -> None:
    """The runs under the runs root, oldest first."""
    from hpcjobs.cli import show_run as screen
    from hpcjobs.run_folder.paths import list_runs, runs_root

    screen.show_runs(list_runs(runs_root()), json_)


@app.command(hidden=True)
def version() -> None:
    """The version."""
    typer.echo(hpcjobs.__version__)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = _take(words, "--debug")
    if words[:1] == ["--version"]:
        words = ["version"]
    try:
        code = app(words, prog_name="hpcjobs", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except SystemExit:  # typer's answer to a reader that leaves
        return _told(BrokenPipeError())
    except (HpcJobsError, _WrongWords, typer.Abort, KeyboardInterrupt, OSError) as error:
        if debug:
            traceback.print_exc()
        return _told(error)
    except Exception as error:
        if debug:
            raise
        print(f"internal error: {type(error).__name__}: {error}\nnext: the same command with --debug", file=sys.stderr)
        return 1


def _take(words: list[str], flag: str) -> bool:
    """Remove `flag` from what stands before `--`; whether it was there."""
    end = words.index("--") if "--" in words else len(words)
    if flag not in words[:end]:
        return False
    words.remove(flag)
    return True


def _told(error: BaseException) -> int:
    """Say an error in its own words; the exit code that goes with it."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        print("interrupted", file=sys.stderr)
        return 130
    if isinstance(error, _WrongWords):
        error.show()
        return UsageError.exit_code
    if isinstance(error, BrokenPipeError):  # `hpcjobs logs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code if isinstance(error, HpcJobsError) else 1
