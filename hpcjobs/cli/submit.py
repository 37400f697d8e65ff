"""submit, resume and join: start runs, continue them, and add ranks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpcjobs.cli.app import app
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
    Restarts,
    RunName,
    Sbatch,
    Sweep,
    Time,
    WaitFlag,
    Word,
    Yes,
    nodes_and_spares,
)

if TYPE_CHECKING:
    from hpcjobs.plan.draft import Draft
    from hpcjobs.run_folder.paths import RunPaths


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
    profile: Annotated[str | None, typer.Option(help="Cluster profile: configs/clusters/<name>.yaml.")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Run folder; default: a new one under the runs root.")] = None,
    name: Annotated[str | None, typer.Option(help="The run's name under the runs root.")] = None,
    model: Annotated[str | None, typer.Option(help="model.name: asset, folder or hub id.")] = None,
    data: Annotated[str | None, typer.Option(help="data.name: asset, file, folder or hub id.")] = None,
    max_samples: Annotated[int | None, typer.Option(min=0, help="Only the first N rows.")] = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="task.metrics: one of them; repeatable.")
    ] = None,
    nodes: Nodes = None,
    gpus: Gpus = None,
    gpus_per_node: GpusPerNode = None,
    ntasks_per_node: Ntasks = None,
    cpus_per_task: Cpus = None,
    array: Array = None,
    restarts: Restarts = None,
    sweep: Sweep = None,
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
    """Plan a run, show the plan, and queue its ranks and the merge job."""
    from hpcjobs.cli.show_plan import show_plan
    from hpcjobs.commands.submit import Flags, SubmitOptions, draft_of

    extra = [*(sbatch or ()), *([f"comment={comment}"] if comment is not None else ())]
    count, spares = nodes_and_spares(nodes)
    flags = Flags(
        nodes=count,
        spares=spares,
        gpus=gpus,
        gpus_per_node=gpus_per_node,
        ntasks_per_node=ntasks_per_node,
        cpus_per_task=cpus_per_task,
        array=array,
        restarts=restarts,
        sweep=sweep,
        mem=mem,
        time=time,
        partition=partition,
        account=account,
        qos=qos,
        constraint=constraint,
        reservation=reservation,
        executor=executor,
        name=name,
        model=model,
        data=data,
        max_samples=max_samples,
        metric=metric or None,
        exclusive=exclusive,
        requeue=requeue,
    )
    options = SubmitOptions(
        job=job,
        config=config,
        profile=profile,
        sets=sets or [],
        flags=flags,
        sbatch=extra,
        argv=argv or [],
        run_dir=run_dir,
    )
    draft, places = draft_of(options)
    show_plan(draft, places, dry_run, json_ and dry_run)
    if not dry_run:
        _go(draft, plan_only, wait, yes, json_)


def _go(draft: Draft, plan_only: bool, wait: bool, yes: bool, json_: bool) -> None:
    from hpcjobs.cli.ask import confirm, is_asked
    from hpcjobs.cli.interrupts import interruptible
    from hpcjobs.cli.show_plan import echo_launch, echo_plan, show_first
    from hpcjobs.cli.show_run import print_error
    from hpcjobs.commands.submit import start

    if plan_only:
        draft.write()
        return echo_plan(draft, json_)
    if not yes:
        if is_asked():
            show_first(draft, print_error)
        confirm("Queue it?", "not queued")
    with interruptible(draft.paths):
        launched = start(draft)
    echo_launch(draft.paths, launched, json_)
    if wait or draft.config.cluster.executor == "debug":
        _wait(draft.paths, json_)
    return None


def _wait(paths: RunPaths, json_: bool) -> None:
    from hpcjobs.cli.show_run import echo_hints, progress, show_end
    from hpcjobs.commands.wait import wait

    try:
        code = wait(paths, progress(paths, json_))
    except KeyboardInterrupt:
        echo_hints(paths)
        raise typer.Exit(130) from None
    show_end(paths, json_)
    raise typer.Exit(code)


@app.command()
def resume(
    run: RunName,
    errors: Annotated[
        bool, typer.Option("--errors", help="Also run again the samples that ended in an error, once that is mended.")
    ] = False,
    allow_changed: Annotated[
        bool,
        typer.Option("--allow-changed", help="Go on with weights, inputs or packages other than planned; recorded."),
    ] = False,
    nodes: Nodes = None,
    gpus: Gpus = None,
    gpus_per_node: GpusPerNode = None,
    ntasks_per_node: Ntasks = None,
    cpus_per_task: Cpus = None,
    array: Array = None,
    restarts: Restarts = None,
    mem: Mem = None,
    time: Time = None,
    partition: Word = None,
    account: Word = None,
    qos: Word = None,
    constraint: Word = None,
    reservation: Word = None,
    executor: Executor = None,
    sbatch: Sbatch = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be started, with the exact scripts; change nothing.")
    ] = False,
    wait: WaitFlag = False,
    yes: Yes = False,
    json_: Json = False,
) -> None:
    """Run what is missing, with the same shape or another; with --errors also what failed."""
    from hpcjobs.cli.interrupts import interruptible
    from hpcjobs.cli.show_plan import echo_launch, show_rest
    from hpcjobs.commands.resume import look_ahead, resume
    from hpcjobs.commands.submit import Flags
    from hpcjobs.run_folder.paths import find_run

    paths = find_run(run)
    count, spares = nodes_and_spares(nodes)
    flags = Flags(
        nodes=count,
        spares=spares,
        gpus=gpus,
        gpus_per_node=gpus_per_node,
        ntasks_per_node=ntasks_per_node,
        cpus_per_task=cpus_per_task,
        array=array,
        restarts=restarts,
        mem=mem,
        time=time,
        partition=partition,
        account=account,
        qos=qos,
        constraint=constraint,
        reservation=reservation,
        executor=executor,
    )
    if dry_run:
        return show_rest(look_ahead(paths, flags, sbatch or [], errors, allow_changed), json_)
    with interruptible(paths):
        launched = resume(paths, flags, sbatch or [], lambda text: typer.echo(text, err=True), errors, allow_changed)
    if launched:
        echo_launch(paths, launched, json_)
    if launched is None or wait or launched.executor == "debug":
        _wait(paths, json_)
    return None


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
    """Add ranks to a running run: more nodes, another partition, or an array of single-node workers."""
    from hpcjobs.cli.interrupts import interruptible
    from hpcjobs.cli.show_plan import echo_launch
    from hpcjobs.commands.resume import join
    from hpcjobs.commands.submit import Flags
    from hpcjobs.run_folder.paths import find_run

    paths = find_run(run)
    count, spares = nodes_and_spares(nodes)
    flags = Flags(
        nodes=count,
        spares=spares,
        gpus=gpus,
        gpus_per_node=gpus_per_node,
        ntasks_per_node=ntasks_per_node,
        cpus_per_task=cpus_per_task,
        array=array,
        mem=mem,
        time=time,
        partition=partition,
        account=account,
        qos=qos,
        constraint=constraint,
        reservation=reservation,
        executor=executor,
    )
    with interruptible(paths):
        launched = join(paths, flags, sbatch or [], lambda text: typer.echo(text, err=True))
    echo_launch(paths, launched, json_)
    if wait:
        _wait(paths, json_)
