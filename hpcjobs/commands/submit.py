"""submit and resume: config, plan and launch in a row; the flow behind the CLI's verbs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcjobs.commands.finish import merge_and_report
from hpcjobs.config import Config
from hpcjobs.config.layers import Layer, dotted_layer, merge_layers, set_layer
from hpcjobs.config.resolve import dump, read_config, resolve, validate
from hpcjobs.config.shape import shape_of
from hpcjobs.errors import LaunchError, UsageError, did_you_mean
from hpcjobs.launch.launch import Start, executor_of, launch
from hpcjobs.plan.draft import JOBS, Draft, Plan, make_plan, make_script_plan, remove_folder
from hpcjobs.plan.train import check_trainable, make_train_plan
from hpcjobs.run_folder.files import write_whole
from hpcjobs.run_folder.ledger.rounds import close_round, open_round
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.submission import Launch, read_launches
from hpcjobs.training.batches import plan_batches

_SETTLE_SECONDS = 8.0
_UNKNOWN_SECONDS = 3600.0
# Flags that are Slurm's own words -> config keys.
FLAGS = {
    "nodes": "cluster.nodes", "gpus": "cluster.gpus", "gpus_per_node": "cluster.gpus_per_node",
    "ntasks_per_node": "cluster.ntasks_per_node", "cpus_per_task": "cluster.cpus_per_task", "mem": "cluster.mem",
    "time": "cluster.time", "partition": "cluster.partition", "account": "cluster.account", "qos": "cluster.qos",
    "constraint": "cluster.constraint", "reservation": "cluster.reservation", "exclusive": "cluster.exclusive",
    "requeue": "cluster.requeue", "executor": "cluster.executor", "name": "run.name", "model": "model.name",
    "data": "data.name", "max_samples": "data.max_samples", "array": "cluster.array",
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
    if order.job == "script":
        draft = make_script_plan(config, list(order.argv), order.run_dir)
    elif order.job == "train":
        draft = make_train_plan(config, order.run_dir)
    else:
        draft = make_plan(order.job, config, order.run_dir)
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
        return launch(draft.paths, draft.config, draft.plan.shape, Start(merge=draft.plan.job != "script"))
    except LaunchError:
        remove_folder(draft.paths.root)
        raise


def resume(paths: RunPaths, flags: dict[str, Any], sbatch: Sequence[str], say: Callable[[str], None]) -> Launch | None:
    """Run what is missing, on another shape if flags say so; None where nothing is missing."""
    plan, config = Plan.read(paths.plan), read_config(paths.config)
    if plan.job == "script":
        raise UsageError(f"{plan.run} is a script run: it has no samples to resume; submit it again")
    if read_launches(paths) and _state(paths) in ("pending", "running", "unknown"):
        raise UsageError(
            f"{plan.run} is still going: hpcjobs status {plan.run}; for more ranks: hpcjobs join {plan.run}; to start "
            f"it anew: hpcjobs cancel {plan.run}"
        )
    return carry_on(paths, _reshaped(config, flags, sbatch), say)


def join(paths: RunPaths, flags: dict[str, Any], sbatch: Sequence[str], say: Callable[[str], None]) -> Launch:
    """Add ranks to a run that is going on, through the same ledger; the merge waits for them too."""
    plan, config = Plan.read(paths.plan), read_config(paths.config)
    if plan.job == "script":
        raise UsageError(f"{plan.run} is a script run: its ranks are fixed, nobody can join them")
    if plan.job == "train":
        raise UsageError(f"{plan.run} is a train run: its ranks go in step, nobody can join them; cancel, then resume")
    if (state := _state(paths)) not in ("pending", "running"):
        raise UsageError(f"{plan.run} is not going on, it is {state}: hpcjobs resume {plan.run} takes a shape too")
    more = _reshaped(config, flags, sbatch)
    if executor_of(more) != read_launches(paths)[-1].executor:
        raise UsageError(f"{plan.run} runs by {read_launches(paths)[-1].executor}: ranks that join it do so as well")
    shape = shape_of(more.cluster, more.model.gpus_per_rank)
    say(f"join    {shape}")
    return launch(paths, more, shape, Start(joined=True))


def _state(paths: RunPaths) -> str:
    from hpcjobs.commands.status import read_status

    return read_status(paths).state


def carry_on(paths: RunPaths, config: Config, say: Callable[[str], None], automatic: bool = False) -> Launch | None:
    """Close the round, merge, and launch the rest as the next round; None where nothing is missing."""
    plan, shape = Plan.read(paths.plan), shape_of(config.cluster, config.model.gpus_per_rank)
    executor_of(config)
    if plan.job == "train":
        return _train_on(paths, config, say, automatic)
    rounds = paths.rounds()
    close_round(paths, rounds[-1], config.run.deterministic)
    merged = merge_and_report(paths)
    if merged.complete:
        say(f"{plan.run} is complete: nothing to resume")
        return None
    open_round(paths, rounds[-1] + 1, merged.missing, plan.chunk_size, config.run.deterministic)
    write_whole(paths.config, dump(config))
    say(f"resume  {len(merged.missing)} of {plan.rows} samples on {shape}")
    return launch(paths, config, shape, Start(automatic=automatic))


def _train_on(paths: RunPaths, config: Config, say: Callable[[str], None], automatic: bool) -> Launch | None:
    """Launch what is left of a training; None where nothing is but evals, which are started.

    At another world size the batch stays what it is.
    """
    check_trainable(config)
    plan, shape = Plan.read(paths.plan), shape_of(config.cluster, 1)
    batches = plan_batches(config.train, shape.ranks)
    merged = merge_and_report(paths)
    if merged.complete:
        say(f"{plan.run} is complete: nothing to resume")
        if paths.then_eval.exists():
            from hpcjobs.commands.then_eval import start_evals

            start_evals(paths, say)
        return None
    write_whole(paths.config, dump(config))
    say(f"resume  {merged.accepted} of {merged.rows} steps are done; {shape}: {batches}")
    return launch(paths, config, shape, Start(automatic=automatic))


def _reshaped(config: Config, flags: dict[str, Any], sbatch: Sequence[str]) -> Config:
    """The config with another shape; a count that is not given again does not outlive a new one beside it."""
    values = config.model_dump(mode="python")
    if flags.get("array") is not None and flags.get("nodes") is None:
        values["cluster"] |= {"nodes": 1}
    elif flags.get("nodes") is not None:
        values["cluster"] |= {"array": None}
    if flags.get("gpus") is not None or flags.get("gpus_per_node") is not None:
        values["cluster"] |= {"gpus": None, "gpus_per_node": None, "ntasks_per_node": None}
    elif flags.get("nodes") is not None and config.cluster.gpus is not None:
        per_node = config.cluster.gpus // config.cluster.nodes
        values["cluster"] |= {"gpus": None, "gpus_per_node": per_node}
    return validate(merge_layers([Layer(values), flag_layer(flags, sbatch)]))


def wait(paths: RunPaths, show: Callable[[Any], None]) -> int:
    """Wait until the run is over; its exit code. It asks only files and the queue: it may be stopped and run again.

    A LaunchError where Slurm has not answered for an hour, and no rank shows life.
    """
    from hpcjobs.commands.status import read_status

    pause, odd_since = 0.5, None
    while True:
        status = read_status(paths)
        show(status)
        if status.over and not status.going and status.state != "failed":
            return status.exit_code()
        # What is over and still going, or failed, may be a moment between two files; what is unknown, a busy Slurm.
        odd = status.over or status.state == "unknown"
        odd_since = (odd_since or time.monotonic()) if odd else None
        if odd_since is not None:
            passed = time.monotonic() - odd_since
            if status.over and passed > _SETTLE_SECONDS:
                return status.exit_code()
            if not status.over and passed > _UNKNOWN_SECONDS:
                raise LaunchError(f"{status.run}: {'; '.join(status.notes)}; next: hpcjobs status {status.folder}")
        sys.stdout.flush()
        time.sleep(pause)
        pause = min(pause * 1.3, 5.0)
