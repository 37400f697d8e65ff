"""score: compute metrics again from results.parquet, without generating."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hpcjobs.config import Config
from hpcjobs.config.resolve import read_config
from hpcjobs.errors import ConfigError, UsageError
from hpcjobs.merge.failures import Failures, split_errors
from hpcjobs.merge.rescoring import answer_of, answered, scored, told_again
from hpcjobs.merge.results import ResultRow, ResultsWriter, schema_of
from hpcjobs.metrics import Aggregator, Judge, Score
from hpcjobs.metrics.revisions import revisions
from hpcjobs.plugins import limit_time
from hpcjobs.requests import Completion, Row
from hpcjobs.run_folder.disk import disk_errors, merge_need
from hpcjobs.run_folder.files import json_text, read_json
from hpcjobs.run_folder.inputs import Inputs, user_columns, user_row
from hpcjobs.run_folder.job_kinds import check_answers
from hpcjobs.run_folder.metrics_file import Summary
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.table_files import TableSwitch
from hpcjobs.tasks.prompts import Prompts

_BATCH = 8192


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
    limit_time(config.run.metric_timeout)
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
    with whole, TableSwitch(paths) as rest, ResultsWriter(paths.results, schema, rest) as writer:
        for batch in pq.ParquetFile(paths.results).iter_batches(_BATCH):
            table = pa.Table.from_batches([batch])
            without, _ = split_errors(table)
            both = zip(answered(table), without.tolist(), strict=True)
            rows = scored(table, [_score(*one, judge, prompts, inputs) for one in both], without, schema)
            failures.count(rows)
            aggregator.add(rows)
            writer.write(rows)
        same = used["target"] == _scored_against(summary, config)
        said = [*_redefined(summary["metrics"], numbers), *failures.warnings(metrics)]
        summary = told_again(summary, aggregator, failures, said, used, same)
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


def _score(row: ResultRow, without: bool, judge: Judge, prompts: Prompts, inputs: Inputs) -> dict[str, Score]:
    values = user_row(inputs[row["index"]])
    if without:
        return judge.failed(lambda: prompts.target(values))
    try:
        return judge.judge(_answer(row, prompts, values), prompts.target(values), values)
    except Exception as error:  # a template may raise anything
        return judge.undecided(error)


def _answer(row: ResultRow, prompts: Prompts, values: Row) -> Completion:
    return answer_of(row, tuple(prompts.options(values)) if row.get("choice_logprobs") else ())
