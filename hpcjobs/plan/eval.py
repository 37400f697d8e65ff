"""Plan eval and generate: check rows, chunks and the first prompt before anything is queued."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from hpcjobs.config.schema import Config
from hpcjobs.config.shape import Shape, shape_of
from hpcjobs.errors import ConfigError, DataError
from hpcjobs.metrics import Judge, check_groups, metrics_of
from hpcjobs.plan.chat_template import check_first_chats
from hpcjobs.plan.draft import Draft, draft_run
from hpcjobs.plan.first_prompt import FirstPrompt, first_prompt
from hpcjobs.plan.generation_keys import generation_notes
from hpcjobs.plan.locate import located
from hpcjobs.plan.model import checked_model, model_folder
from hpcjobs.plan.model_files import vocabulary_notes
from hpcjobs.plan.prompt_lengths import length_notes
from hpcjobs.plan.user_code import metric_code
from hpcjobs.plugins import limit_time
from hpcjobs.requests import Chat, Prompt, Request, Row, Target
from hpcjobs.run_folder.inputs import table_sha256, user_columns, user_row
from hpcjobs.run_folder.job_kinds import find_kind
from hpcjobs.run_folder.json_columns import python_rows
from hpcjobs.run_folder.ledger.chunks import default_chunk_size, plan_chunks
from hpcjobs.run_folder.plan import PlanData
from hpcjobs.tasks.datasets import expected_work, load_table
from hpcjobs.tasks.few_shot import Pool, TableRows, is_own, pool_table
from hpcjobs.tasks.nulls import null_notes
from hpcjobs.tasks.prompts import ExampleError, Prompts
from hpcjobs.tasks.targets import target_notes


def make_plan(job: str, config: Config, folder: Path | None = None) -> Draft:
    """Plan an eval or generate run. Everything that can be checked before queueing is checked here.

    Raises a UsageError (ConfigError, DataError) that names the key or the row.
    """
    shape = shape_of(config.cluster, config.model.gpus_per_rank)
    config = located(config)
    if config.task.type == "lm_eval":
        return _lm_eval_plan(job, config, folder, shape)
    if config.task.samples or config.task.predict_only:
        raise ConfigError(f"task.samples and task.predict_only are for task.type lm_eval; it is {config.task.type}")
    scored = find_kind(job).scored
    metrics = metrics_of(config.task) if scored else ()
    if scored and not metrics:
        raise ConfigError("task.metrics is empty: name a metric, or use `submit generate` for answers without scores")
    config = config.model_copy(update={"task": config.task.model_copy(update={"metrics": metrics})})
    measures = Judge(config.task).metrics
    needing = [metric.name for metric in measures if getattr(metric, "needs_target", True)]
    if needing and config.task.target is None:
        raise ConfigError(f"task.target is not set, and {', '.join(needing)} compare with it")
    model = checked_model(config)
    table = load_table(config.data)
    if not len(table) and config.data.max_samples != 0:
        raise DataError(f"data set {config.data.title} has no rows")
    check_groups(config.task.group_by, table.schema)
    check_groups([config.task.cluster_by] if config.task.cluster_by else [], table.schema, "task.cluster_by")
    columns, shots = user_columns(table.column_names), config.task.few_shot
    prompts = Prompts(config.task, columns)
    few_shot = pool_table(config, table, prompts.asked)
    if shots.k:
        pool = Pool(shots, TableRows(table if few_shot is None else few_shot), is_own(shots))
        prompts = Prompts(config.task, columns, pool)
    limit_time(config.run.metric_timeout)
    _try_first(prompts, table)
    dated = list[str]()
    if config.task.type != "perplexity":
        dated = check_first_chats(config, table, lambda row: _chat(prompts.request(row, 0).prompt))
    size = config.run.chunk_size or default_chunk_size(len(table))
    work = expected_work(table, prompts.columns & set(table.column_names))
    chunks, notes = plan_chunks(work, size), [*null_notes(prompts, table), *target_notes(prompts, measures, table)]
    if shots.data and not shots.k:
        notes.append("task.few_shot.data is set, and task.few_shot.k is 0: no examples are shown")
    if config.task.type != "perplexity":
        notes += length_notes(config, table, work, lambda row: prompts.request(row, 0))
    data = PlanData(
        name=config.data.title,
        rows=len(table),
        sha256=table_sha256(table),
        columns=table.column_names,
        few_shot_sha256=None if few_shot is None else table_sha256(few_shot),
    )
    return draft_run(
        job, config, folder, shape, lambda run: metric_code(metrics, run), few_shot=few_shot,
        table=table, chunks=chunks, chunk_size=size, data=data, model=model, first=_shown(config, prompts, table),
        notes=[*notes, *dated, *generation_notes(config), *vocabulary_notes(model_folder(config))],
    )  # fmt: skip


def _lm_eval_plan(job: str, config: Config, folder: Path | None, shape: Shape) -> Draft:
    """The plan of an lm_eval task, which brings its own data, prompts and metrics."""
    from hpcjobs.tasks.lmeval.build import plan_task
    from hpcjobs.tasks.lmeval.eval_task import planned_request

    if not find_kind(job).scored:
        raise ConfigError("task.type lm_eval has metrics of its own: use `submit eval`")
    model, task = checked_model(config), plan_task(config)
    size = config.run.chunk_size or default_chunk_size(len(task.table))
    work = expected_work(task.table, {"requests"})
    chunks = plan_chunks(work, size)
    content, columns = table_sha256(task.table), task.table.column_names
    data = replace(task.facts, rows=len(task.table), sha256=content, columns=columns)
    return draft_run(
        job, task.config, folder, shape, task.snapshot,
        table=task.table, chunks=chunks, chunk_size=size, data=data, model=model,
        first=_shown_request(task.config, task.table, planned_request),
        notes=[
            *task.notes, *length_notes(task.config, task.table, work, planned_request),
            *generation_notes(task.config), *vocabulary_notes(model_folder(task.config)),
        ],
    )  # fmt: skip


def _shown(config: Config, prompts: Prompts, table: pa.Table) -> FirstPrompt | None:
    """The first prompt, its target and that one's own score; None of a data set without rows."""
    return _shown_request(
        config, table, lambda row: prompts.request(row, config.run.seed), lambda row: prompts.target(user_row(row))
    )


def _shown_request(
    config: Config,
    table: pa.Table,
    request_of: Callable[[Row], Request],
    target_of: Callable[[Row], Target] = lambda row: None,
) -> FirstPrompt | None:
    for row in python_rows(table.slice(0, 1)):
        return first_prompt(config, request_of(row), row, target_of(row))
    return None


def _chat(prompt: Prompt) -> Chat | None:
    return None if isinstance(prompt, str) else prompt


def _try_first(prompts: Prompts, table: pa.Table) -> None:
    """Render the first row now, instead of failing after hours in the queue."""
    for name in table.column("id").slice(0, 1).to_pylist():
        try:
            row = python_rows(table.slice(0, 1))[0]
            prompts.request(row, 0)
            prompts.target(user_row(row))
        except ExampleError as error:
            raise DataError(f"the task's templates fail: {error}") from None
        except Exception as error:  # a template may raise anything
            said = str(error) or type(error).__name__
            raise DataError(f"the task's templates fail on the first row (id {name!r}): {said}") from None
