"""resume and join: continue a run, or add ranks to a running one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hpcjobs.commands.merge import merge_and_report
from hpcjobs.commands.submit import flag_layer, start_run
from hpcjobs.config import Config
from hpcjobs.config.layers import Layer, merge_layers
from hpcjobs.config.resolve import dump, read_config, validate
from hpcjobs.config.shape import shape_of
from hpcjobs.errors import UsageError
from hpcjobs.launch.launch import Start, executor_of
from hpcjobs.plan.train import check_trainable
from hpcjobs.run_folder.files import write_whole
from hpcjobs.run_folder.ledger.rounds import close_round, open_round
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.run_folder.run_state import RunState
from hpcjobs.run_folder.submission import Launch, read_launches
from hpcjobs.training.batches import plan_batches


def resume(paths: RunPaths, flags: dict[str, Any], sbatch: Sequence[str], echo: Callable[[str], None]) -> Launch | None:
    """Run what is missing, with another shape if flags set one. None if nothing is missing. Raises a UsageError."""
    plan, config = Plan.read(paths.plan), read_config(paths.config)
    if plan.job == "script":
        raise UsageError(f"{plan.run} is a script run: it has no samples to resume; submit it again")
    if read_launches(paths) and not _state(paths).over:
        raise UsageError(
            f"{plan.run} is still going: hpcjobs status {plan.run}; for more ranks: hpcjobs join {plan.run}; to start "
            f"it anew: hpcjobs cancel {plan.run}"
        )
    return carry_on(paths, _reshaped(config, flags, sbatch), echo)


def join(paths: RunPaths, flags: dict[str, Any], sbatch: Sequence[str], echo: Callable[[str], None]) -> Launch:
    """Add ranks to a running run, through the same ledger; the merge waits for them too. Raises a UsageError."""
    plan, config = Plan.read(paths.plan), read_config(paths.config)
    if plan.job == "script":
        raise UsageError(f"{plan.run} is a script run: its ranks are fixed, nobody can join them")
    if plan.job == "train":
        raise UsageError(f"{plan.run} is a train run: its ranks go in step, nobody can join them; cancel, then resume")
    if (state := _state(paths)) not in (RunState.PENDING, RunState.RUNNING):
        raise UsageError(f"{plan.run} is not going on, it is {state}: hpcjobs resume {plan.run} takes a shape too")
    more = _reshaped(config, flags, sbatch)
    if executor_of(more) != read_launches(paths)[-1].executor:
        raise UsageError(f"{plan.run} runs by {read_launches(paths)[-1].executor}: ranks that join it do so as well")
    shape = shape_of(more.cluster, more.model.gpus_per_rank)
    echo(f"join    {shape}")
    return start_run(paths, more, shape, Start(joined=True))


def _state(paths: RunPaths) -> RunState:
    from hpcjobs.commands.status import read_status

    return read_status(paths).state


def carry_on(paths: RunPaths, config: Config, echo: Callable[[str], None], automatic: bool = False) -> Launch | None:
    """Close the round, merge, and launch the rest as the next round. None if nothing is missing."""
    plan, shape = Plan.read(paths.plan), shape_of(config.cluster, config.model.gpus_per_rank)
    executor_of(config)
    if plan.job == "train":
        return _train_on(paths, config, echo, automatic)
    rounds = paths.rounds()
    close_round(paths, rounds[-1], config.run.deterministic)
    merged = merge_and_report(paths)
    if merged.complete:
        echo(f"{plan.run} is complete: nothing to resume")
        return None
    open_round(paths, rounds[-1] + 1, merged.missing, plan.chunk_size, config.run.deterministic)
    write_whole(paths.config, dump(config))
    echo(f"resume  {len(merged.missing)} of {plan.rows} samples on {shape}")
    return start_run(paths, config, shape, Start(automatic=automatic))


def _train_on(paths: RunPaths, config: Config, echo: Callable[[str], None], automatic: bool) -> Launch | None:
    """Launch the rest of a training. None if it is complete; evals that are due are then started.

    The global batch stays the same at another world size.
    """
    check_trainable(config)
    plan, shape = Plan.read(paths.plan), shape_of(config.cluster, 1)
    batches = plan_batches(config.train, shape.ranks)
    merged = merge_and_report(paths)
    if merged.complete:
        echo(f"{plan.run} is complete: nothing to resume")
        if paths.then_eval.exists():
            from hpcjobs.commands.then_eval import start_evals

            start_evals(paths, echo)
        return None
    write_whole(paths.config, dump(config))
    echo(f"resume  {merged.accepted} of {merged.rows} steps are done; {shape}: {batches}")
    return start_run(paths, config, shape, Start(automatic=automatic))


def _reshaped(config: Config, flags: dict[str, Any], sbatch: Sequence[str]) -> Config:
    """The config with another shape. Counts that contradict the new flags are dropped."""
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
