"""submit: config, plan and launch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcjobs.commands.merge import merge_and_report
from hpcjobs.commands.seen import Seen
from hpcjobs.config import Config
from hpcjobs.config.layers import Layer, dotted_layer, set_layer
from hpcjobs.config.placing import placed, placing
from hpcjobs.config.resolve import resolve
from hpcjobs.config.shape import Shape
from hpcjobs.errors import LaunchError, UsageError
from hpcjobs.launch.claim import Start
from hpcjobs.launch.launch import executor_of, launch
from hpcjobs.launch.startable import check_startable
from hpcjobs.plan.by_kind import PLANNERS
from hpcjobs.plan.draft import Draft
from hpcjobs.plugins import contained
from hpcjobs.run_folder.job_kinds import JobKind, find_kind, kind_of
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.removal import remove_folder
from hpcjobs.run_folder.submission import Launch

# Flag -> config key; most flags have Slurm's names.
FLAGS = {
    "nodes": "cluster.nodes", "gpus": "cluster.gpus", "gpus_per_node": "cluster.gpus_per_node",
    "ntasks_per_node": "cluster.ntasks_per_node", "cpus_per_task": "cluster.cpus_per_task", "mem": "cluster.mem",
    "time": "cluster.time", "partition": "cluster.partition", "account": "cluster.account", "qos": "cluster.qos",
    "constraint": "cluster.constraint", "reservation": "cluster.reservation", "exclusive": "cluster.exclusive",
    "requeue": "cluster.requeue", "executor": "cluster.executor", "name": "run.name", "model": "model.name",
    "data": "data.name", "max_samples": "data.max_samples", "array": "cluster.array", "sweep": "sweep",
    "restarts": "cluster.restarts", "spares": "cluster.spares", "metric": "task.metrics",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Flags:
    """The flags that are config keys (FLAGS); None if not given."""

    nodes: int | None = None
    gpus: int | None = None
    gpus_per_node: int | None = None
    ntasks_per_node: int | None = None
    cpus_per_task: int | None = None
    mem: str | None = None
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    reservation: str | None = None
    exclusive: bool | None = None
    requeue: bool | None = None
    executor: str | None = None
    name: str | None = None
    model: str | None = None
    data: str | None = None
    max_samples: int | None = None
    array: int | None = None
    restarts: int | None = None
    spares: int | None = None
    sweep: str | None = None
    metric: Sequence[str] | None = None


@dataclass(frozen=True, kw_only=True)
class SubmitOptions:
    """The arguments of `submit`. `config` is a file, or its values; `layers` count more than `sets`, and less than
    `flags`.
    """

    job: str
    config: Path | Layer | None
    profile: str | None
    sets: Sequence[str]
    flags: Flags
    sbatch: Sequence[str]
    argv: Sequence[str]
    run_dir: Path | None
    layers: Sequence[Layer] = ()


def flag_layer(flags: Flags, sbatch: Sequence[str], program: bool = False) -> Layer:
    """The config layer of the flags that were given. Raises a UsageError.

    sbatch's `signal` is `cluster.warn` for a `program`.
    """
    given = {name: value for name, value in vars(flags).items() if value is not None}
    values: dict[str, object] = {FLAGS[name]: value for name, value in given.items()}
    places = {FLAGS[name]: f"--{name.replace('_', '-')}" for name in given}
    for word in sbatch:
        key, equals, value = word.partition("=")
        if not key or "." in key:
            raise UsageError(f"--sbatch {word!r}: write it as key=value, such as comment=nightly")
        if program and key.removeprefix("--") == "signal":
            signal, _, before = value.partition("@")
            if not signal or ":" in signal or not (before or "60").isdigit():
                raise UsageError(f"--sbatch {word}: a program is warned by NAME@SECONDS, such as signal=USR1@120")
            values |= {"cluster.warn.signal": signal, "cluster.warn.before": int(before or 60)}
            places |= dict.fromkeys(("cluster.warn.signal", "cluster.warn.before"), "--sbatch signal")
            continue
        dotted = f"cluster.sbatch.{key.removeprefix('--')}"
        values[dotted], places[dotted] = (value if equals else True), f"--sbatch {key}"
    return dotted_layer(values, places)


def draft_of(options: SubmitOptions) -> tuple[Draft, dict[str, str]]:
    """The checked plan, still in memory, and where each config value came from. Raises a UsageError."""
    kind = find_kind(options.job)
    if options.argv and not kind.program:
        files = [word for word in options.argv if word.endswith((".yaml", ".yml"))]
        meant = f"; did you mean --config {files[0]}?" if files else ""
        if "}}" in options.argv:
            meant = "; a template needs quotes, for the shell and for YAML: --set 'task.target=\"{{ answer }}\"'"
        raise UsageError(f"submit {options.job} takes no words after its options: {' '.join(options.argv)}{meant}")
    if options.flags.metric is not None and not kind.scored:
        raise UsageError(f"--metric is for submit eval: {kind} has no scores")
    upper = [set_layer(options.sets), *options.layers, flag_layer(options.flags, options.sbatch, kind.program)]
    config, places = resolve(options.job, options.config, options.profile, upper)
    if config.sweep is not None and not kind.program:
        raise UsageError(f"sweep is for programs: hpcjobs submit script --sweep FILE -- prog.py; this is {kind}")
    if config.cluster.restarts and (config.sweep is not None or not kind.alone):
        what, instead = ("a sweep", "run.retries") if config.sweep is not None else (str(kind), "run.auto_resume")
        raise UsageError(f"cluster.restarts is for submit script; {what} goes on by {instead}")
    executor = executor_of(config)
    if config.run.retries and config.sweep is None:
        why = "run.retries is for the points of a sweep, and there is none"
        raise UsageError(placed(f"{why}: leave it out (run.auto_resume is how often a run is started again)", places))
    with placing(places), contained():
        draft = PLANNERS[kind.name](config, options.argv, options.run_dir)
    if executor == "debug" and draft.plan.shape.ranks > 1:
        raise UsageError(f"--executor debug runs one rank, not {draft.plan.shape.ranks}: use --executor local")
    if executor == "debug" and (config.cluster.restarts or (kind.alone and config.cluster.array)):
        raise UsageError("--executor debug runs one rank, once: no --restarts, no --array; use --executor local")
    if draft.paths.root.exists():
        raise UsageError(f"run folder {draft.paths.root} exists: {_ways_on(draft.paths)}")
    if executor == "slurm":
        check_startable(draft.config, draft.plan.shape, draft.paths, kind.program)
    return draft, places


def _ways_on(paths: RunPaths) -> str:
    """What to do where the run's name is taken."""
    other = "choose another --name or --run-dir"
    if not paths.plan.is_file():
        return f"{other}; if a submit that was cut short has left it: hpcjobs rm {paths.root}"
    return f"{other}, or go on with it: hpcjobs resume {paths.root}; to remove it: hpcjobs rm {paths.root}"


def start(draft: Draft) -> Launch:
    """Write the run folder and launch it. If Slurm refuses, neither jobs nor a folder are left."""
    draft.write()
    paths, shape, array = draft.paths, draft.plan.shape, draft.plan.kind.alone and draft.config.cluster.array
    copies = tuple(range(shape.workers)) if array else ()
    options = Start(merge=ends_with_job(draft.plan.kind, draft.config), indexes=copies)
    record = Seen(0, 0).claim(paths, executor_of(draft.config), shape, options)
    try:
        return start_run(paths, draft.config, shape, options, record)
    except LaunchError:
        remove_folder(paths.root)
        raise


def ends_with_job(kind: JobKind, config: Config) -> bool:
    """Whether a job follows the ranks: the merge, or what starts a program again that was warned."""
    return kind.has("merge") or (kind.alone and config.cluster.warn is not None)


def start_run(paths: RunPaths, config: Config, shape: Shape, start: Start, record: Launch) -> Launch:
    """Queue or start a claimed launch. With the debug executor its rank and the merge run in this process."""
    record = launch(paths, config, shape, start, record)
    if record.executor == "debug":
        from hpcjobs.worker.run import run_rank

        os.environ.update(config.cluster.env)
        try:
            run_rank(str(paths.root))
        except SystemExit as end:  # a program has ended in order before it was done
            if end.code:
                raise
        if start.merge and not kind_of(paths).alone:
            merge_and_report(paths)
    return record
