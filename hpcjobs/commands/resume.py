"""resume and join: continue a run, or add ranks to a running one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hpcjobs.commands.carry_on import carry_on, run_errors_again
from hpcjobs.commands.going import check_going, check_over
from hpcjobs.commands.seen import Seen
from hpcjobs.commands.status import read_status
from hpcjobs.commands.submit import Flags, ends_with_job, flag_layer, start_run
from hpcjobs.config import Config
from hpcjobs.config.layers import Layer, merge_layers
from hpcjobs.config.problems import validate
from hpcjobs.config.resolve import read_config
from hpcjobs.config.shape import Shape, shape_of
from hpcjobs.engines.fingerprint import check_planned
from hpcjobs.errors import UsageError
from hpcjobs.launch.claim import Start, claim, withdraw
from hpcjobs.launch.jobs import known_launches
from hpcjobs.launch.launch import executor_of
from hpcjobs.launch.startable import check_startable
from hpcjobs.plan.train import check_trainable
from hpcjobs.run_folder.job_kinds import check_answers
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.run_folder.run_state import RunState
from hpcjobs.run_folder.submission import Launch, read_launches, together
from hpcjobs.training.batches import plan_batches


def resume(
    paths: RunPaths, flags: Flags, sbatch: Sequence[str], echo: Callable[[str], None], errors: bool = False,
    allow_changed: bool = False,
) -> Launch | None:  # fmt: skip
    """Run what is missing, with another shape if flags set one; with `errors` also what has no completion.

    `allow_changed` sets the key of that name: ranks go on with a model, inputs or packages that have changed. None if
    there is nothing to run. Raises a UsageError.
    """
    seen = Seen.now(paths)
    _, config, _ = _checked(paths, flags, sbatch, errors, allow_changed)
    _withdraw_cut_short(paths)
    return (run_errors_again if errors else carry_on)(paths, config, echo, seen)


def _checked(
    paths: RunPaths, flags: Flags, sbatch: Sequence[str], errors: bool, allow_changed: bool
) -> tuple[Plan, Config, Shape]:
    """The plan, and config and shape of its rest. Raises a UsageError if it cannot be resumed so."""
    plan, config = Plan.read(paths.plan), read_config(paths.config)
    plan.kind.check("resume", plan.run)
    if errors:
        check_answers(paths, "run again")
    if read_launches(paths):
        check_over(paths, plan.run)
    if plan.kind.alone and flags.array is not None and flags.array != config.cluster.array:
        had = f"{config.cluster.array} copies" if config.cluster.array else "no copies"
        raise UsageError(f"--array {flags.array}: {plan.run} has {had}, as it was submitted; leave --array out")
    config = _reshaped(config, flags, sbatch, plan.kind.alone)
    if allow_changed:
        config = config.model_copy(update={"run": config.run.model_copy(update={"allow_changed": True})})
    shape = shape_of(config.cluster, config.model.gpus_per_rank, script=plan.kind.alone)
    if executor_of(config) == "slurm":
        check_startable(config, shape, paths, plan.kind.program)
    return plan, config, shape


@dataclass(frozen=True, kw_only=True)
class Rest:
    """What a resume would start: in words, and the exact scripts by job; none if nothing is left."""

    words: str
    executor: str
    scripts: Mapping[str, str] = field(default_factory=dict)


def look_ahead(paths: RunPaths, flags: Flags, sbatch: Sequence[str], errors: bool, allow_changed: bool) -> Rest:
    """What `resume` with the same arguments would start. Changes nothing. Raises a UsageError, as it does.

    Of chunks that dead ranks have left half done a resume keeps the samples that are whole, so fewer may be left.
    """
    plan, config, shape = _checked(paths, flags, sbatch, errors, allow_changed)
    status, executor = read_status(paths), executor_of(config)
    failed = status.metrics.counts.errors if errors and status.metrics else 0
    left, unit = status.rows - status.done + failed, plan.kind.unit
    if (status.state == RunState.COMPLETE and not failed) or (unit != "none" and not left):
        return Rest(words=f"{plan.run} is {status.state}, and nothing is left to run", executor=executor)
    if not plan.kind.program:
        check_planned(config.model, plan.model, paths.root, config.run.allow_changed)
    if unit == "steps":
        check_trainable(config)
        plan_batches(config.train, shape.ranks)
    what = " ".join(plan.argv) if unit == "none" else f"{left} of {status.rows} {plan.kind.counted}"
    some = "at most " if unit == "answers" and not (status.metrics and status.over) else ""
    rest = Rest(words=f"{some}{what} on {shape}", executor=executor)
    if executor != "slurm":
        return rest
    from hpcjobs.launch.sbatch import scripts

    merge = ends_with_job(plan.kind, config)
    return replace(rest, scripts=scripts(config, shape, paths, merge, plan.kind.program))


def _withdraw_cut_short(paths: RunPaths) -> None:
    """Let launches of killed commands not count, so that a job of theirs that appears only now ends at once.

    Of a command that lives, such as a join of this moment, a job may just be queued: `claim` sees that one.
    """
    for one in read_launches(paths):
        if not (one.launched or one.jobs or one.supervisor or one.starting):
            withdraw(paths, one.number, "cut short; resumed since")


def join(paths: RunPaths, flags: Flags, sbatch: Sequence[str], echo: Callable[[str], None]) -> Launch:
    """Add ranks to a running run, through the same ledger; the merge waits for them too. Raises a UsageError."""
    plan, config = Plan.read(paths.plan), read_config(paths.config)
    plan.kind.check("join", plan.run)
    more, start = _reshaped(config, flags, sbatch), Start(joined=True)
    shape, executor = shape_of(more.cluster, more.model.gpus_per_rank), executor_of(more)
    check_planned(more.model, plan.model, paths.root, more.run.allow_changed)
    if executor == "slurm":
        check_startable(more, shape, paths)
    record = None
    while record is None:  # other joins may take the next number: then what there is by then is looked at again
        seen = Seen.now(paths)
        _check_joinable(paths, plan, executor)
        record = claim(paths, executor, shape, start, seen.number, seen.round)
    echo(f"join    {shape}")
    return start_run(paths, more, shape, start, record)


def _check_joinable(paths: RunPaths, plan: Plan, executor: str) -> None:
    check_going(paths, plan.run)
    launches = known_launches(paths)
    if executor != launches[-1].executor:
        raise UsageError(f"{plan.run} runs by {launches[-1].executor}: ranks that join it do so as well")
    if (first := together(launches)[0]).starting:
        raise UsageError(
            f"{plan.run} is being launched right now, by process {first.by['pid']} on {first.host}: join it once "
            f"hpcjobs status {plan.run} shows its jobs"
        )


def _reshaped(config: Config, flags: Flags, sbatch: Sequence[str], program: bool = False) -> Config:
    """The config with another shape. Counts that contradict the new flags are dropped.

    The copies of a `program` may have any nodes.
    """
    values = config.model_dump(mode="python")
    if flags.nodes is not None:
        values["cluster"] |= {"spares": 0}
    if flags.array is not None and flags.nodes is None and flags.array != config.cluster.array:
        values["cluster"] |= {"nodes": 1}
    elif flags.nodes is not None and not program:
        values["cluster"] |= {"array": None}
    if flags.gpus is not None or flags.gpus_per_node is not None:
        values["cluster"] |= {"gpus": None, "gpus_per_node": None, "ntasks_per_node": None}
    elif flags.nodes is not None and config.cluster.gpus is not None:
        per_node = config.cluster.gpus // config.cluster.nodes
        values["cluster"] |= {"gpus": None, "gpus_per_node": per_node}
    return validate(merge_layers([Layer(values), flag_layer(flags, sbatch)]))
