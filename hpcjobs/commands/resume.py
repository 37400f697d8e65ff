"""resume and join: continue a run, or add ranks to a running one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hpcjobs.commands.carry_on import carry_on, run_errors_again
from hpcjobs.commands.submit import Flags, flag_layer, start_run
from hpcjobs.config import Config
from hpcjobs.config.layers import Layer, merge_layers
from hpcjobs.config.problems import validate
from hpcjobs.config.resolve import read_config
from hpcjobs.config.shape import shape_of
from hpcjobs.errors import UsageError
from hpcjobs.launch.launch import Start, executor_of
from hpcjobs.run_folder.job_kinds import check_answers
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.run_folder.run_state import RunState
from hpcjobs.run_folder.submission import Launch, read_launches


def resume(
    paths: RunPaths, flags: Flags, sbatch: Sequence[str], echo: Callable[[str], None], errors: bool = False,
    allow_changed: bool = False,
) -> Launch | None:  # fmt: skip
    """Run what is missing, with another shape if flags set one; with `errors` also what has no completion.

    `allow_changed` sets the key of that name: ranks go on with a model, inputs or packages that have changed. None if
    there is nothing to run. Raises a UsageError.
    """
    plan, config = Plan.read(paths.plan), read_config(paths.config)
    plan.kind.check("resume", plan.run)
    if errors:
        check_answers(paths, "run again")
    if read_launches(paths) and not _state(paths).over:
        raise UsageError(
            f"{plan.run} is still going: hpcjobs status {plan.run}; for more ranks: hpcjobs join {plan.run}; to start "
            f"it anew: hpcjobs cancel {plan.run}"
        )
    config = _reshaped(config, flags, sbatch)
    if allow_changed:
        config = config.model_copy(update={"run": config.run.model_copy(update={"allow_changed": True})})
    return (run_errors_again if errors else carry_on)(paths, config, echo)


def join(paths: RunPaths, flags: Flags, sbatch: Sequence[str], echo: Callable[[str], None]) -> Launch:
    """Add ranks to a running run, through the same ledger; the merge waits for them too. Raises a UsageError."""
    plan, config = Plan.read(paths.plan), read_config(paths.config)
    plan.kind.check("join", plan.run)
    if (state := _state(paths)) not in (RunState.PENDING, RunState.RUNNING):
        resume = f"hpcjobs resume {plan.run} takes a shape too"
        then = "nothing is left for more ranks" if state == RunState.COMPLETE else resume
        raise UsageError(f"{plan.run} is not going on, it is {state}: {then}")
    more = _reshaped(config, flags, sbatch)
    if executor_of(more) != read_launches(paths)[-1].executor:
        raise UsageError(f"{plan.run} runs by {read_launches(paths)[-1].executor}: ranks that join it do so as well")
    shape = shape_of(more.cluster, more.model.gpus_per_rank)
    echo(f"join    {shape}")
    return start_run(paths, more, shape, Start(joined=True))


def _state(paths: RunPaths) -> RunState:
    from hpcjobs.commands.status import read_status

    return read_status(paths).state


def _reshaped(config: Config, flags: Flags, sbatch: Sequence[str]) -> Config:
    """The config with another shape. Counts that contradict the new flags are dropped."""
    values = config.model_dump(mode="python")
    if flags.array is not None and flags.nodes is None:
        values["cluster"] |= {"nodes": 1}
    elif flags.nodes is not None:
        values["cluster"] |= {"array": None}
    if flags.gpus is not None or flags.gpus_per_node is not None:
        values["cluster"] |= {"gpus": None, "gpus_per_node": None, "ntasks_per_node": None}
    elif flags.nodes is not None and config.cluster.gpus is not None:
        per_node = config.cluster.gpus // config.cluster.nodes
        values["cluster"] |= {"gpus": None, "gpus_per_node": per_node}
    return validate(merge_layers([Layer(values), flag_layer(flags, sbatch)]))
