"""verify and compare: one job at several world sizes, and two runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpcjobs.cli.app import app
from hpcjobs.cli.flags import (
    Json,
    Time,
    Word,
    Yes,
)
from hpcjobs.errors import UsageError

if TYPE_CHECKING:
    from hpcjobs.plan.draft import Draft
    from hpcjobs.run_folder.paths import RunPaths


@app.command()
def verify(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML, as for submit.")],
    world_sizes: Annotated[str, typer.Option(metavar="1,2,4", help="Numbers of ranks; the first is the baseline.")],
    job: Annotated[str, typer.Option(metavar="eval|generate", help="What each rank does.")] = "eval",
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="One config value; repeatable.")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Cluster profile: configs/clusters/<name>.yaml.")] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="The runs' folder, for w1, w2...; default: a new name under the runs root.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="model.name: asset, folder or hub id.")] = None,
    data: Annotated[str | None, typer.Option(help="data.name: asset, file, folder or hub id.")] = None,
    max_samples: Annotated[int | None, typer.Option(min=0, help="Only the first N rows.")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Nodes, for world sizes that divide by it.")] = None,
    time: Time = None,
    partition: Word = None,
    account: Word = None,
    qos: Word = None,
    executor: Annotated[str | None, typer.Option(help="auto, slurm or local.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="How many flips are printed; --json has all.")] = 10,
    yes: Yes = False,
    json_: Json = False,
) -> None:
    """Run the same job at several world sizes and compare the results sample by sample. All run folders are kept.

    Runs on GPUs if the config has any, else on CPUs. Exit code 0: all results are identical; 1: a sample differs, or a
    run failed; 3: a run is incomplete.
    """
    from hpcjobs.cli.ask import confirm
    from hpcjobs.cli.show_comparison import show_verdict
    from hpcjobs.cli.show_plan import show_sizes
    from hpcjobs.commands import verify as flow
    from hpcjobs.commands.submit import Flags, SubmitOptions

    options = SubmitOptions(
        job=job,
        config=config,
        profile=profile,
        sets=sets or [],
        flags=Flags(
            model=model,
            data=data,
            max_samples=max_samples,
            nodes=nodes,
            time=time,
            partition=partition,
            account=account,
            qos=qos,
            executor=executor,
        ),
        sbatch=[],
        argv=[],
        run_dir=run_dir,
    )
    drafts = flow.plan_runs(options, flow.parse_sizes(world_sizes))
    show_sizes(drafts)
    if not yes:
        confirm("Run them?", "not run")
    verdict = flow.judge(_run_all(drafts, json_), options, limit)
    show_verdict(verdict, json_)
    raise typer.Exit(verdict.exit_code())


def _run_all(drafts: dict[int, Draft], json_: bool) -> dict[int, RunPaths]:
    from hpcjobs.cli.show_run import echo_hints, progress
    from hpcjobs.commands.verify import run_all, still_going

    folders = [draft.paths for draft in drafts.values()]
    try:
        return run_all(drafts, lambda paths: progress(paths, json_))
    except KeyboardInterrupt:
        for paths in still_going(folders):
            echo_hints(paths)
        raise typer.Exit(130) from None


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="The baseline run: folder, name, or 'last'.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The other run, of the same kind.")],
    gate: Annotated[
        list[str] | None, typer.Option(metavar="METRIC=0.01", help="By how much a metric may get worse; repeatable.")
    ] = None,
    allow_incomplete: Annotated[
        bool, typer.Option("--allow-incomplete", help="Decide gates on the samples or steps that exist.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all flips, or all common steps, as JSON Lines.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="For train runs: write curves and values as an HTML page.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="How many flips are printed; --json has all.")] = 10,
    json_: Json = False,
) -> None:
    """Compare run B with run A. For evals: the difference of each metric on the common samples, and the samples that
    flipped. For train runs: losses, speed, config keys that differ, and the curves step by step, finished or not.

    Gates of train runs: loss, eval_loss, best_eval_loss (by how much it may rise) and tokens_per_s (fall).

    Exit code 1: a metric of B is worse than its gate allows; 3: a gate cannot be decided because a run is incomplete.
    """
    from hpcjobs.cli.show_comparison import show_findings
    from hpcjobs.run_folder.job_kinds import unit_of_both
    from hpcjobs.run_folder.paths import find_run

    runs = find_run(a), find_run(b)
    if unit_of_both(*runs) == "steps":
        return _compare_trainings(*runs, gate or [], allow_incomplete, (out, report), json_)
    if report is not None:
        raise UsageError("--report is for two train runs: an eval's own page is written by hpcjobs report RUN")
    from hpcjobs.compare.eval_findings import find

    findings = find(*runs, gate or [], allow_incomplete, out)
    show_findings(findings, limit, json_)
    raise typer.Exit(findings.exit_code())


def _compare_trainings(
    a: RunPaths, b: RunPaths, gates: list[str], partly: bool, files: tuple[Path | None, Path | None], json_: bool
) -> None:
    from hpcjobs.cli.show_comparison import show_trainings
    from hpcjobs.commands.overlay import write_overlay
    from hpcjobs.compare.train_findings import find_trainings

    out, report = files
    findings = find_trainings(a, b, gates, partly, out, report)
    if report is not None:
        write_overlay(report, findings)
    show_trainings(findings, json_)
    raise typer.Exit(findings.exit_code())
