"""submit and resume: config, plan and launch in a row; the flow behind the CLI's verbs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcjobs.config import Config
from hpcjobs.entry import merge_and_report
from hpcjobs.errors import LaunchError, UsageError, did_you_mean
from hpcjobs.files import write_whole
from hpcjobs.launch import executor_of, launch
from hpcjobs.layers import Layer, dotted_layer, set_layer
from hpcjobs.paths import RunPaths
from hpcjobs.plan import JOBS, Draft, Plan, make_plan, make_script_plan, remove_folder
from hpcjobs.resolve import dump, read_config, resolve, validate
from hpcjobs.rounds import close_round, open_round
from hpcjobs.shape import shape_of
from hpcjobs.submission import Launch, read_launches

_SETTLE_SECONDS = 8.0
# Flags that are Slurm's own words -> config keys.
FLAGS = {
    "nodes": "cluster.nodes", "gpus": "cluster.gpus", "gpus_per_node": "cluster.gpus_per_node",
    "ntasks_per_node": "cluster.ntasks_per_node", "cpus_per_task": "cluster.cpus_per_task", "mem": "cluster.mem",
    "time": "cluster.time", "partition": "cluster.partition", "account": "cluster.account", "qos": "cluster.qos",
    "constraint": "cluster.constraint", "reservation": "cluster.reservation", "exclusive": "cluster.exclusive",
    "requeue": "cluster.requeue", "executor": "cluster.executor", "name": "run.name", "model": "model.name",
    "data": "data.name", "max_samples": "data.max_samples",
}  # fmt: skip


@dataclass(frozen=True)
class Order:
    """What a user typed after `submit`."""

    job: str
    config: Path | None
    profile: str | None
    sets: Sequence[str]
    flags: dict[str, Any]
    sbatch: Sequence[str]
    argv: Sequence[str]
    run_dir: Path | None


def flag_layer(flags: dict[str, Any], sbatch: Sequence[str]) -> Layer:
    """The layer of the flags that were given."""
    given = {name: value for name, value in flags.items() if value is not None}
    values = {FLAGS[name]: value for name, value in given.items()}
    places = {FLAGS[name]: f"--{name.replace('_', '-')}" for name in given}
    for word in sbatch:
        key, equals, value = word.partition("=")
        if not key or "." in key:
            raise UsageError(f"--sbatch {word!r}: write it as key=value, such as comment=nightly")
        dotted = f"cluster.sbatch.{key.removeprefix('--')}"
        values[dotted], places[dotted] = (value if equals else True), f"--sbatch {key}"
    return dotted_layer(values, places)


def draft_of(order: Order) -> tuple[Draft, dict[str, str]]:
    """The checked plan of an order, still in memory, and where each config value came from."""
    if order.job not in JOBS:
        raise UsageError(f"no job {order.job!r}{did_you_mean(order.job, JOBS)}; there are: {', '.join(JOBS)}")
    if order.argv and order.job != "script":
        raise UsageError(f"submit {order.job} takes no words after its options: {' '.join(order.argv)}")
    upper = [set_layer(order.sets), flag_layer(order.flags, order.sbatch)]
    config, places = resolve(order.job, order.config, order.profile, upper)
    executor = executor_of(config)
    draft = (
        make_script_plan(config, list(order.argv), order.run_dir)
        if order.job == "script"
        else make_plan(order.job, config, order.run_dir)
    )
    if executor == "debug" and draft.plan.shape.ranks > 1:
        raise UsageError(f"--executor debug runs one rank, not {draft.plan.shape.ranks}: use --executor local")
    if draft.paths.root.exists():
        further = f", or go on with it: hpcjobs resume {draft.paths.root}" if draft.paths.plan.is_file() else ""
        raise UsageError(f"run folder {draft.paths.root} exists: choose another --name or --run-dir{further}")
    return draft, places


def start(draft: Draft) -> Launch:
    """Write the run folder and launch. A refusal of the queue leaves neither jobs nor a folder."""
    draft.write()
    try:
        return launch(draft.paths, draft.config, draft.plan.shape, with_merge=draft.plan.job != "script")
    except LaunchError:
        remove_folder(draft.paths.root)
        raise


def resume(paths: RunPaths, flags: dict[str, Any], sbatch: Sequence[str], say: Callable[[str], None]) -> Launch | None:
    """Run what is missing, on another shape if flags say so; None where nothing is missing."""
    from hpcjobs.status import read_status

    plan, config = Plan.read(paths.plan), read_config(paths.config)
    if plan.job == "script":
        raise UsageError(f"{plan.run} is a script run: it has no samples to resume; submit it again")
    if read_launches(paths) and read_status(paths).state in ("pending", "running"):
        raise UsageError(
            f"{plan.run} is still going: hpcjobs status {plan.run}; to start it anew: hpcjobs cancel {plan.run}"
        )
    return carry_on(paths, _reshaped(config, flags, sbatch), say)


def carry_on(paths: RunPaths, config: Config, say: Callable[[str], None], automatic: bool = False) -> Launch | None:
    """Close the round, merge, and launch the rest as the next round; None where nothing is missing."""
    plan, shape = Plan.read(paths.plan), shape_of(config.cluster, config.model.gpus_per_rank)
    executor_of(config)
    rounds = paths.rounds()
    close_round(paths, rounds[-1], config.run.deterministic)
    merged = merge_and_report(paths)
    if merged.complete:
        say(f"{plan.run} is complete: nothing to resume")
        return None
    open_round(paths, rounds[-1] + 1, merged.missing, plan.chunk_size, config.run.deterministic)
    write_whole(paths.config, dump(config))
    say(f"resume  {len(merged.missing)} of {plan.rows} samples on {shape}")
    return launch(paths, config, shape, with_merge=True, automatic=automatic)


def _reshaped(config: Config, flags: dict[str, Any], sbatch: Sequence[str]) -> Config:
    """The config with another shape; a count that is not given again does not outlive a new one beside it."""
    values = config.model_dump(mode="python")
    if flags.get("gpus") is not None or flags.get("gpus_per_node") is not None:
        values["cluster"] |= {"gpus": None, "gpus_per_node": None, "ntasks_per_node": None}
    elif flags.get("nodes") is not None and config.cluster.gpus is not None:
        per_node = config.cluster.gpus // config.cluster.nodes
        values["cluster"] |= {"gpus": None, "gpus_per_node": per_node}
    from hpcjobs.layers import merge_layers

    return validate(merge_layers([Layer(values), flag_layer(flags, sbatch)]))


def wait(paths: RunPaths, show: Callable[[Any], None]) -> int:
    """Wait until the run is over; its exit code. It asks only files and the queue: it may be stopped and run again."""
    from hpcjobs.status import read_status

    pause, unknown_since = 0.5, None
    while True:
        status = read_status(paths)
        show(status)
        if status.over:
            settled = not (status.going or status.state == "failed") or _settled(unknown_since)
            if settled:
                return status.exit_code()
            unknown_since = unknown_since or time.monotonic()
        else:
            unknown_since = None
        sys.stdout.flush()
        time.sleep(pause)
        pause = min(pause * 1.3, 5.0)


def _settled(since: float | None) -> bool:
    """The merge's files may show a little after its end does, and its end a little after its files."""
    return since is not None and time.monotonic() - since > _SETTLE_SECONDS
