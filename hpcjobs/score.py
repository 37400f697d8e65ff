"""score: metrics anew from results.parquet, without generating anything."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hpcjobs.data import Inputs, user_columns, user_row
from hpcjobs.disk import disk_errors, merge_need
from hpcjobs.errors import ConfigError, UsageError
from hpcjobs.files import Together, json_text, read_json
from hpcjobs.metrics import Fold, Metric, find_metrics, score_sample
from hpcjobs.paths import RunPaths
from hpcjobs.prompts import Prompts
from hpcjobs.resolve import read_config
from hpcjobs.results import ResultsWriter, schema_of

_BATCH = 8192
_READ = ["index", "completion", "error"]


def rescore(paths: RunPaths, metric_names: Sequence[str], target: str | None) -> dict[str, Any]:
    """Rewrite the scores of results.parquet and metrics.json; the new metrics.json's values.

    `metric_names` and `target` replace the config's where given. Samples with an error count 0 as before.
    """
    if not paths.results.exists():
        raise UsageError(f"{paths.results} does not exist yet; next: hpcjobs merge {paths.root.name}")
    task = read_config(paths.config).task
    task = task.model_copy(update={"target": target} if target is not None else {})
    metrics = find_metrics(metric_names or task.metrics)
    if not metrics:
        raise ConfigError("no metric to score with: hpcjobs score RUN --metric exact_match")
    if task.target is None and any(getattr(metric, "needs_target", True) for metric in metrics):
        raise ConfigError("the run has no task.target to compare with: give one, --target '{{ answer }}'")
    inputs, folds = Inputs(paths.data), {metric.name: Fold() for metric in metrics}
    prompts = Prompts(task, user_columns(inputs.columns))
    summary: dict[str, Any] = read_json(paths.metrics)
    used = {"metrics": list(metric_names or task.metrics), "target": task.target}
    whole = disk_errors(paths.results, need=merge_need(paths), next_command=f"hpcjobs score {paths.root}")
    with whole, Together() as rest, ResultsWriter(paths.results, schema_of(list(folds), inputs.schema)) as writer:
        for batch in pq.ParquetFile(paths.results).iter_batches(_BATCH):
            scores = [_score(row, metrics, prompts, inputs) for row in batch.select(_READ).to_pylist()]
            for name, fold in folds.items():
                for sample in scores:
                    fold.add(sample[name])
            table = pa.Table.from_batches([batch])
            columns = [
                pa.array(scores, field.type) if field.name == "scores" else table.column(field.name)
                for field in writer.schema
            ]
            writer.write(pa.Table.from_arrays(columns, schema=writer.schema))
        summary["metrics"] = {name: fold.summary() for name, fold in folds.items()}
        summary["provenance"] |= {"rescored_at": time.time(), "rescored_with": used}
        rest.write(paths.metrics, json_text(summary))
    return summary


def _score(row: dict[str, Any], metrics: Sequence[Metric], prompts: Prompts, inputs: Inputs) -> dict[str, float]:
    if row["error"] is not None:
        return dict.fromkeys((metric.name for metric in metrics), 0.0)
    asked = user_row(inputs[row["index"]])
    return score_sample(metrics, row["completion"], prompts.target(asked), asked)
