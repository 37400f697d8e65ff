"""score for runs of lm_eval tasks: the task's code judges the answers of results.parquet again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hpcjobs.config import Config
from hpcjobs.errors import ConfigError, UsageError, did_you_mean
from hpcjobs.merge.failures import Failures, split_errors
from hpcjobs.merge.rescoring import answer_of, answered, scored, told_again
from hpcjobs.merge.results import ResultRow, ResultsWriter, schema_of
from hpcjobs.metrics import Aggregator, Metric, Score
from hpcjobs.run_folder.disk import disk_errors, merge_need
from hpcjobs.run_folder.files import json_text, read_json
from hpcjobs.run_folder.inputs import Inputs
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.table_files import TableSwitch
from hpcjobs.tasks.lmeval.eval_task import LmEvalTask
from hpcjobs.tasks.lmeval.fold import planned_metrics
from hpcjobs.tasks.lmeval.tasks import load_mended

_BATCH = 1024


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
    with whole, TableSwitch(paths) as rest, ResultsWriter(paths.results, schema, rest) as writer:
        for batch in pq.ParquetFile(paths.results).iter_batches(_BATCH):
            table = pa.Table.from_batches([batch])
            without, _ = split_errors(table)
            both = zip(answered(table), without.tolist(), strict=True)
            rows = scored(table, [_judged(*one, task, inputs) for one in both], without, schema)
            failures.count(rows)
            aggregator.add(rows)
            writer.write(rows)
        used = {"metrics": [metric.name for metric in metrics], "target": None, "code": str(code)}
        said = failures.warnings(metrics)
        summary = told_again(read_json(paths.metrics), aggregator, failures, said, used, same_target=True)
        rest.write(paths.metrics, json_text(summary))
    return summary


def _chosen(metrics: Sequence[Metric], names: Sequence[str]) -> list[Metric]:
    known = {metric.name: metric for metric in metrics}
    for name in names:
        if name not in known:
            near = did_you_mean(name, known)
            raise ConfigError(f"--metric {name}: the run's task has no such metric{near}; it has {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names or known)]


def _judged(row: ResultRow, without: bool, task: LmEvalTask, inputs: Inputs) -> dict[str, Score]:
    values = inputs[row["index"]]
    if without:
        return task.failed(values)
    try:
        return task.judge(answer_of(row), values)
    except Exception as error:  # the task's code may raise anything
        return dict.fromkeys(task.failed(values), Score.none(error))
