"""score: compute metrics again from results.parquet, without generating."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hpcjobs.config import Config
from hpcjobs.config.resolve import read_config
from hpcjobs.errors import ConfigError, UsageError
from hpcjobs.merge.earlier import rescored
from hpcjobs.merge.failures import Failures, Mask, is_of_failures, split_errors
from hpcjobs.merge.results import ResultRow, ResultsWriter, schema_of
from hpcjobs.metrics import Aggregator, Judge, Score, metric_errors
from hpcjobs.metrics.revisions import revisions
from hpcjobs.requests import Completion, Likelihood, Row
from hpcjobs.run_folder.disk import disk_errors, merge_need
from hpcjobs.run_folder.files import FileTransaction, json_text, read_json
from hpcjobs.run_folder.inputs import Inputs, user_columns, user_row
from hpcjobs.run_folder.job_kinds import check_answers
from hpcjobs.run_folder.journal.table import storable
from hpcjobs.run_folder.metrics_file import Summary, with_verdict
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.tasks.prompts import Prompts

_BATCH = 8192
_READ = [
    "index", "completion", "finish_reason", "prompt_tokens", "completion_tokens", "error",
    "completions", "choice_logprobs", "choice_greedy", "choice_tokens",
]  # fmt: skip


def rescore(paths: RunPaths, metric_names: Sequence[str], target: str | None) -> dict[str, Any]:
    """Rewrite the scores in results.parquet and metrics.json; returns the new values of metrics.json.

    `metric_names` and `target` replace the config's, if given. Every sample that has a completion is judged, also where
    a metric failed before; where one fails now, the sample has no score of it. Raises a UsageError.
    """
    check_answers(paths, "score")
    if not paths.results.exists():
        raise UsageError(f"{paths.results} does not exist yet; next: hpcjobs merge {paths.root.name}")
    config = read_config(paths.config)
    task = config.task
    if task.type == "lm_eval":
        from hpcjobs.merge.score_lm_eval import rescore_lm_eval

        return rescore_lm_eval(paths, config, metric_names, target)
    task = task.model_copy(update={"target": target} if target is not None else {})
    task = task.model_copy(update={"metrics": tuple(metric_names) or task.metrics})
    judge = Judge(task)
    metrics = judge.metrics
    if not metrics:
        raise ConfigError("no metric to score with: hpcjobs score RUN --metric exact_match")
    if task.target is None and any(getattr(metric, "needs_target", True) for metric in metrics):
        raise ConfigError("the run has no task.target to compare with: give one, --target '{{ answer }}'")
    numbers = revisions(task, metrics)
    inputs, aggregator = Inputs(paths.data), Aggregator(metrics, task, numbers)
    prompts = Prompts(task, user_columns(inputs.columns))
    summary: dict[str, Any] = read_json(paths.metrics)
    used = {"metrics": list(task.metrics), "target": task.target}
    whole = disk_errors(paths.results, need=merge_need(paths), next_command=f"hpcjobs score {paths.root}")
    schema = schema_of(metrics, inputs.schema, task)
    failures = Failures()
    with whole, FileTransaction() as rest, ResultsWriter(paths.results, schema) as writer:
        for batch in pq.ParquetFile(paths.results).iter_batches(_BATCH):
            table = pa.Table.from_batches([batch])
            without, _ = split_errors(table)
            read = table.select([name for name in _READ if name in table.column_names]).to_pylist()
            both = zip(read, without.tolist(), strict=True)
            rows = _scored(table, [_score(*one, judge, prompts, inputs) for one in both], without, schema)
            failures.count(rows)
            aggregator.add(rows)
            writer.write(rows)
        summary["counts"] |= {"errors": failures.errors, "metric_errors": failures.metric_errors}
        kept = [line for line in summary["warnings"] if not is_of_failures(line)]
        redefined = _redefined(summary["metrics"], numbers)
        summary["warnings"] = [*kept, *redefined, *failures.warnings(metrics)]
        summary = rescored(summary, aggregator.summary(), used["target"] == _scored_against(summary, config))
        summary["provenance"] |= {"rescored_at": time.time(), "rescored_with": used}
        summary = with_verdict(aggregator.told(summary))
        rest.write(paths.metrics, json_text(summary))
    return summary


def _redefined(earlier: Mapping[str, Summary], numbers: Mapping[str, int]) -> list[str]:
    """A warning for each metric whose definition is another than when it was scored."""
    return [
        f"the definition of {name} has changed since it was scored; its value was {one['value']}"
        for name, one in earlier.items()
        if name in numbers and one.get("revision", 1) != numbers[name]
    ]


def _scored_against(summary: dict[str, Any], config: Config) -> str | None:
    """The target that the scores so far are of."""
    target: str | None = summary["provenance"].get("rescored_with", {}).get("target", config.task.target)
    return target


def _scored(table: pa.Table, scores: Sequence[dict[str, Score]], without: Mask, schema: pa.Schema) -> pa.Table:
    """The rows with these scores. An error stays only where there is no completion."""
    made: dict[str, list[object]] = {
        "scores": [{name: score.number for name, score in sample.items()} for sample in scores],
        "statistics": [{name: score.statistics for name, score in sample.items()} for sample in scores],
        "metric_errors": [storable([asdict(error) for error in metric_errors(sample)]) for sample in scores],
    }
    errors = pc.if_else(pa.array(without), table.column("error"), pa.scalar(None, table.schema.field("error").type))
    columns = [
        pa.array(made[field.name], field.type)
        if field.name in made
        else errors
        if field.name == "error"
        else table.column(field.name)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _score(row: ResultRow, without: bool, judge: Judge, prompts: Prompts, inputs: Inputs) -> dict[str, Score]:
    values = user_row(inputs[row["index"]])
    if without:
        return judge.failed(lambda: prompts.target(values))
    try:
        return judge.judge(_answer(row, prompts, values), prompts.target(values), values)
    except Exception as error:  # a template may raise anything
        return judge.undecided(error)


def _answer(row: ResultRow, prompts: Prompts, values: Row) -> Completion:
    """The answer as it stands in a row of results.parquet."""
    likelihood = None
    if row.get("choice_logprobs"):
        logprobs = tuple(-math.inf if value is None else value for value in row["choice_logprobs"] or ())
        options = tuple(prompts.options(values))
        likelihood = Likelihood(logprobs, tuple(row["choice_greedy"]), tuple(row["choice_tokens"]), options)
    return Completion(
        index=row["index"],
        text=row["completion"],
        finish_reason=row["finish_reason"],
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
        texts=tuple(row.get("completions") or ()),
        likelihood=likelihood,
    )
