"""Show a plan or a launch, as text or JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import typer

from hpcjobs.assets import shipped
from hpcjobs.cli.show_run import print_error
from hpcjobs.cli.terminal import visible
from hpcjobs.config.checks import minutes_and_seconds
from hpcjobs.config.shell import shell_notes
from hpcjobs.plan.draft import Draft
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.submission import Launch

if TYPE_CHECKING:
    from hpcjobs.commands.resume import Rest


def show_plan(draft: Draft, places: Mapping[str, str], dry: bool, as_json: bool) -> None:
    """Show a plan; with `dry` (--dry-run) also where values came from (`places`), and the exact scripts."""
    from hpcjobs.launch.launch import executor_of

    executor = executor_of(draft.config)
    scripts: dict[str, str] = {}
    if dry and executor == "slurm":
        from hpcjobs.commands.submit import ends_with_job
        from hpcjobs.launch.sbatch import scripts as scripts_of

        kind, after = draft.plan.kind, ends_with_job(draft.plan.kind, draft.config)
        scripts = scripts_of(draft.config, draft.plan.shape, draft.paths, after, kind.program)
    if as_json:
        plan = dataclasses.asdict(draft.plan)
        config = draft.config.model_dump(mode="json")
        first = draft.first and dataclasses.asdict(draft.first)
        values = {"plan": plan, "first": first, "config": config, "from": places, "executor": executor}
        typer.echo(json.dumps(values | {"scripts": scripts}, indent=2))
        return
    out = typer.echo if dry else print_error
    shell = _of_the_shell(draft, places) if executor == "slurm" else []
    for line in [*draft.plan.summary(), f"by      {executor}", *shell, f"folder  {draft.paths.root}"]:
        out(line)
    if executor == "local" and draft.plan.shape.nodes > 1:
        out(f"note    the local executor has this machine only: all {draft.plan.shape.ranks} ranks run here")
    if dry:
        show_first(draft, typer.echo)
        _show_dry(draft, places, executor, scripts)


def show_first(draft: Draft, out: Callable[[str], None]) -> None:
    """Show the first prompt of an eval, if there is one."""
    for line in ["", *draft.first.lines()] if draft.first else []:
        out(visible(line))  # else typer takes escape sequences away where the output is no terminal


def _of_the_shell(draft: Draft, places: Mapping[str, str]) -> list[str]:
    """Lines that say which SBATCH_* of the shell count and which do not, and a time that may be meant otherwise."""
    config, taken = draft.config.model_dump(mode="json"), sorted((place, key) for key, place in places.items())
    lines = [
        f"shell   {place}: {key} = {json.dumps(_value_at(config, key))}"
        for place, key in taken
        if place.startswith("SBATCH_")
    ]
    lines += [f"note    {note}" for note in shell_notes(os.environ)]
    if short := minutes_and_seconds(draft.config.cluster.time):
        lines.append(f"note    cluster.time {draft.config.cluster.time} is {short}, as Slurm reads it")
    return lines


def _show_dry(draft: Draft, places: Mapping[str, str], executor: str, scripts: Mapping[str, str]) -> None:
    typer.echo("\n# config: where each value came from (all others are built-in defaults)")
    config = draft.config.model_dump(mode="json")
    for key, place in sorted({_whole(config, key): place for key, place in places.items()}.items()):
        value = _value_at(config, key)
        leaf = not isinstance(value, dict) and not any(other.startswith(f"{key}.") for other in places)
        if leaf or value == {}:
            typer.echo(f"{key} = {json.dumps(value)}    # {place}")
    for kind, text in scripts.items():
        typer.echo(f"\n# script: {kind}\n{text.rstrip()}")
    if not scripts:
        typer.echo(f"\n# command ({executor})\n{sys.executable} -m hpcjobs.supervisor {draft.paths.root} 0")


def _whole(value: object, key: str) -> str:
    """The key, or the one of the value that it is within: `task.metrics` for an option of a metric, which is a text."""
    parts = key.split(".")
    for length, part in enumerate(parts):
        plain_list = isinstance(value, list) and not any(isinstance(item, dict) for item in value)
        if plain_list or not isinstance(value, dict | list):
            return ".".join(parts[:length])
        value = value[int(part)] if isinstance(value, list) else value.get(part)
    return key


def _value_at(value: object, key: str) -> Any:
    """The value of a dotted key; None if there is none."""
    for part in key.split("."):
        value = value[int(part)] if isinstance(value, list) else value.get(part) if isinstance(value, dict) else None
    return value


def echo_plan(draft: Draft, as_json: bool) -> None:
    """Show where a plan was written, and how to start it by hand."""
    paths = draft.paths
    if as_json:
        typer.echo(json.dumps({"run": paths.root.name, "folder": str(paths.root), "planned": True}))
        return
    template = draft.plan.kind.template
    start = f"sbatch {shipped('sbatch') / template}" if template else "srun python -m hpcjobs.worker"
    typer.echo(f"planned {paths.root}\nnext    {start} {paths.root}")


def show_rest(rest: Rest, as_json: bool) -> None:
    """Show what a resume would start."""
    if as_json:
        return typer.echo(json.dumps(dataclasses.asdict(rest)))
    typer.echo(f"resume  {rest.words}\nby      {rest.executor}")
    for kind, text in rest.scripts.items():
        typer.echo(f"\n# script: {kind}\n{text.rstrip()}")
    return None


def echo_launch(paths: RunPaths, launch: Launch, as_json: bool) -> None:
    """Show the jobs of a launch, its notes and the next command."""
    if as_json:
        value = {"run": paths.root.name, "folder": str(paths.root), "jobs": launch.jobs, "executor": launch.executor}
        value["notes"] = launch.notes
        typer.echo(json.dumps(value))
        return
    jobs = ", ".join(f"{kind} {job_id}" for kind, job_id in launch.jobs.items())
    print_error(f"started {launch.executor}: {jobs or 'in this process'}")
    for note in launch.notes:
        print_error(f"note    {note}")
    print_error(f"next    hpcjobs status {paths.root.name if paths.root.parent.name == 'runs' else paths.root}")


def show_sizes(drafts: Mapping[int, Draft]) -> None:
    """Show the plans of verify."""
    common = [set(draft.plan.summary()) for draft in drafts.values()]
    for line in next(iter(drafts.values())).plan.summary():
        if line in set.intersection(*common):
            print_error(line)
    for size, draft in drafts.items():
        print_error(f"{f'w{size}':<7} {draft.plan.job}: {draft.plan.shape}  {draft.paths.root}")
