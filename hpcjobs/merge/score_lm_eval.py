"""score for runs of lm_eval tasks: the task's code judges the answers of results.parquet again."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hpcjobs.config import Config
from hpcjobs.errors import ConfigError, UsageError, did_you_mean
from hpcjobs.merge.earlier import rescored
from hpcjobs.merge.failures import Failures, is_of_failures
from hpcjobs.merge.results import ResultRow, ResultsWriter, schema_of
from hpcjobs.metrics import Aggregator, Metric, Score, metric_errors
from hpcjobs.requests import Completion, Likelihood, SampleError
from hpcjobs.run_folder.disk import disk_errors, merge_need
from hpcjobs.run_folder.files import FileTransaction, json_text, read_json
from hpcjobs.run_folder.inputs import Inputs
from hpcjobs.run_folder.journal.table import storable
from hpcjobs.run_folder.metrics_file import with_verdict
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.tasks.lmeval.eval_task import LmEvalTask
from hpcjobs.tasks.lmeval.fold import planned_metrics
from hpcjobs.tasks.lmeval.tasks import load_mended

_BATCH = 1024
_READ = [
    "index", "completion", "finish_reason", "prompt_tokens", "completion_tokens", "error", "completions",
    "choice_logprobs", "choice_greedy", "choice_tokens",
]  # fmt: skip


@dataclass(frozen=True)
class _Judged:
    """The scores of a row, and why it has no completion."""

    scores: dict[str, Score]
    error: SampleError | None


def rescore_lm_eval(paths: RunPaths, config: Config, metric_names: Sequence[str], target: str | None) -> dict[str, Any]:
    """Rewrite scores, errors of scoring, and values by the task's code as it is now; returns the new metrics.json.

    Raises a UsageError.
    """
    if target is not None:
        raise UsageError(f"{paths.root.name} runs an lm_eval task, which has targets of its own: leave --target out")
    loaded, code = load_mended(paths.code, config.task)
    metrics = _chosen(planned_metrics(paths.code, loaded), metric_names)
    task, inputs = LmEvalTask(paths.code, config.run.seed, loaded), Inputs(paths.data)
    aggregator, schema = Aggregator(metrics, config.task), schema_of(metrics, inputs.schema, config.task)
    failures = Failures()
    whole = disk_errors(paths.results, need=merge_need(paths), next_command=f"hpcjobs score {paths.root}")
    with whole, FileTransaction() as rest, ResultsWriter(paths.results, schema) as writer:
        for rows in _rows(paths.results, schema, task, inputs):
            aggregator.add(rows)
            writer.write(rows)
            failures.count(rows)
        summary: dict[str, Any] = read_json(paths.metrics)
        summary["counts"] |= {"errors": failures.errors, "metric_errors": failures.metric_errors}
        kept = [line for line in summary["warnings"] if not is_of_failures(line)]
        summary["warnings"] = [*kept, *failures.warnings(metrics)]
        used = {"metrics": [metric.name for metric in metrics], "target": None, "code": str(code)}
        summary = rescored(summary, aggregator.summary(), same_target=True)
        summary["provenance"] |= {"rescored_at": time.time(), "rescored_with": used}
        summary = with_verdict(aggregator.told(summary))
        rest.write(paths.metrics, json_text(summary))
    return summary


def _chosen(metrics: Sequence[Metric], names: Sequence[str]) -> list[Metric]:
    known = {metric.name: metric for metric in metrics}
    for name in names:
        if name not in known:
            near = did_you_mean(name, known)
            raise ConfigError(f"--metric {name}: the run's task has no such metric{near}; it has {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names or known)]


def _rows(results: Path, schema: pa.Schema, task: LmEvalTask, inputs: Inputs) -> Iterator[pa.Table]:
    for batch in pq.ParquetFile(results).iter_batches(_BATCH):
        table = pa.Table.from_batches([batch])
        read = table.select([name for name in _READ if name in table.column_names]).to_pylist()
        judged = [_judged(row, task, inputs) for row in read]
        made: dict[str, list[object]] = {
            name: [{key: getattr(score, part) for key, score in one.scores.items()} for one in judged]
            for name, part in (("scores", "number"), ("statistics", "statistics"))
        }
        made["error"] = [one.error and asdict(one.error) for one in judged]
        made["metric_errors"] = [storable([asdict(one) for one in metric_errors(each.scores)]) for each in judged]
        arrays = [
            pa.array(made[field.name], field.type) if field.name in made else table.column(field.name)
            for field in schema
        ]
        yield pa.Table.from_arrays(arrays, schema=schema)


def _judged(row: ResultRow, task: LmEvalTask, inputs: Inputs) -> _Judged:
    """A row without a completion keeps its error."""
    values = inputs[row["index"]]
    if row["error"] is not None and row["finish_reason"] == "error":
        return _Judged(task.failed(values), SampleError(**row["error"]))
    try:
        return _Judged(task.judge(_answer(row), values), None)
    except Exception as error:  # the task's code may raise anything
        return _Judged(dict.fromkeys(task.failed(values), Score.none(error)), None)


def _answer(row: ResultRow) -> Completion:
    likelihood = None
    if row.get("choice_logprobs"):
        logprobs = tuple(-math.inf if value is None else value for value in row["choice_logprobs"] or ())
        likelihood = Likelihood(logprobs, tuple(row["choice_greedy"]), tuple(row["choice_tokens"]))
    return Completion(
        index=row["index"],
        text=row["completion"],
        finish_reason=row["finish_reason"],
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
        texts=tuple(row.get("completions") or ()),
        likelihood=likelihood,
    )
