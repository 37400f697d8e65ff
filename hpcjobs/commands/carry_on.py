"""Launch the rest of an incomplete run, by kind of job; used by resume and the merge job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hpcjobs.commands.merge import merge_and_report
from hpcjobs.commands.seen import Seen
from hpcjobs.commands.submit import ends_with_job, start_run
from hpcjobs.config import Config
from hpcjobs.config.resolve import dump
from hpcjobs.config.shape import shape_of
from hpcjobs.engines.fingerprint import check_planned
from hpcjobs.launch.claim import Start
from hpcjobs.launch.launch import executor_of
from hpcjobs.plan.train import check_trainable
from hpcjobs.run_folder.calls import forget_outcomes
from hpcjobs.run_folder.copies import numbers
from hpcjobs.run_folder.files import write_whole
from hpcjobs.run_folder.job_kinds import kind_of
from hpcjobs.run_folder.ledger.rounds import close_round, open_round
from hpcjobs.run_folder.metrics_file import MetricsFile
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.run_folder.run_state import RunState
from hpcjobs.run_folder.submission import Launch
from hpcjobs.training.batches import plan_batches


def carry_on(
    paths: RunPaths, config: Config, echo: Callable[[str], None], seen: Seen, automatic: bool = False
) -> Launch | None:
    """Merge, and launch what is missing, with the shape of `config`. None if nothing is missing.

    Raises an OvertakenError if another command has launched the run since `seen`.
    """
    executor_of(config)
    return REST[kind_of(paths).name](paths, config, echo, seen, automatic)


def run_errors_again(paths: RunPaths, config: Config, echo: Callable[[str], None], seen: Seen) -> Launch | None:
    """Launch the samples without a completion once more, and those without a result. None if there are none.

    What they have now stops counting when the round opens; until they are done again they are missing. Raises an
    OvertakenError, as `carry_on`.
    """
    executor_of(config)
    return _next_round(paths, config, echo, seen, errors=True)


def _answers(
    paths: RunPaths, config: Config, echo: Callable[[str], None], seen: Seen, automatic: bool
) -> Launch | None:
    """Close the round, and launch the samples without a result as the next round."""
    return _next_round(paths, config, echo, seen, automatic=automatic)


def _next_round(
    paths: RunPaths,
    config: Config,
    echo: Callable[[str], None],
    seen: Seen,
    automatic: bool = False,
    errors: bool = False,
) -> Launch | None:
    plan, shape = Plan.read(paths.plan), shape_of(config.cluster, config.model.gpus_per_rank)
    deterministic, start = config.run.deterministic, Start(automatic=automatic)
    close_round(paths, seen.round, deterministic)
    merged = merge_and_report(paths)
    if merged.kept:
        echo(f"kept    {merged.kept.partition('; next')[0]}")
    failed = merged.failed if errors else ()
    if merged.complete and not failed:
        echo(f"no sample of {plan.run} lacks a completion" if errors else _nothing_missing(paths, plan.run))
        return None
    todo = [*merged.missing, *failed]
    check_planned(config.model, plan.model, paths.root, config.run.allow_changed)
    record = seen.claim(paths, executor_of(config), shape, start, new_round=True)
    if failed and paths.call_facts.exists():
        forget_outcomes(paths, failed, record.round)
    open_round(paths, record.round, todo, plan.chunk_size, deterministic, again=bool(failed))
    write_whole(paths.config, dump(config))
    which = f", {len(failed)} of them with an error," if failed else ""
    echo(f"resume  {len(todo)} of {plan.rows} samples{which} on {shape}")
    return start_run(paths, config, shape, start, record)


def _nothing_missing(paths: RunPaths, run: str) -> str:
    verdict = MetricsFile.read(paths.metrics).verdict
    if verdict.state == RunState.COMPLETE:
        return f"{run} is complete: nothing to resume"
    return f"every sample of {run} has its result: nothing to resume; {verdict.why}"


def _steps(
    paths: RunPaths, config: Config, echo: Callable[[str], None], seen: Seen, automatic: bool
) -> Launch | None:
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
    check_planned(config.model, plan.model, paths.root, config.run.allow_changed)
    start = Start(automatic=automatic)
    record = seen.claim(paths, executor_of(config), shape, start)
    write_whole(paths.config, dump(config))
    echo(f"resume  {merged.accepted} of {merged.rows} steps are done; {shape}: {batches}")
    return start_run(paths, config, shape, start, record)


def _program(
    paths: RunPaths, config: Config, echo: Callable[[str], None], seen: Seen, automatic: bool
) -> Launch | None:
    """Start a program again, in the same run folder; of an array what has not ended well. None if all of it has."""
    from hpcjobs.commands.status import read_status

    plan, shape = Plan.read(paths.plan), shape_of(config.cluster, 1, script=True)
    status = read_status(paths)
    left = [one for one in status.copies if one.state != RunState.COMPLETE]
    if automatic:  # what has failed would fail again
        left = [one for one in left if one.state != RunState.FAILED]
    if status.state == RunState.COMPLETE or (status.copies and not left):
        echo(f"{plan.run} is complete: nothing to resume")
        return None
    indexes = tuple(one.index for one in left)
    if indexes:
        shape = replace(shape, workers=len(indexes))
        echo(f"copies  {numbers(indexes)} of {len(status.copies)} have not ended well")
    start = Start(merge=ends_with_job(plan.kind, config), automatic=automatic, indexes=indexes)
    record = seen.claim(paths, executor_of(config), shape, start)
    write_whole(paths.config, dump(config))
    echo(f"resume  {' '.join(plan.argv)} starts again on {shape}")
    return start_run(paths, config, shape, start, record)


REST: dict[str, Callable[[RunPaths, Config, Callable[[str], None], Seen, bool], Launch | None]] = {
    "eval": _answers, "generate": _answers, "sweep": _answers, "map": _answers, "train": _steps, "script": _program,
}  # fmt: skip
