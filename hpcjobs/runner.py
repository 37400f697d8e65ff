"""Evaluate without Slurm: in one process, or in several under `accelerate launch`.

python -m hpcjobs.runner --data_file canned_50_quick --max_samples 5
accelerate launch --num_processes 4 -m hpcjobs.runner --use_accelerate --data_file unified --max_samples 100
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, TypedDict

import numpy as np
import pyarrow as pa

from hpcjobs.config import Config, DataConfig, GenerationConfig
from hpcjobs.config.layers import dotted_layer, set_layer
from hpcjobs.config.resolve import resolve
from hpcjobs.distributed.rank import lone_launch_hint
from hpcjobs.distributed.share import table_rows
from hpcjobs.errors import HpcJobsError, UsageError
from hpcjobs.metrics import Fold, Judge, MeanFold, Metric, Score, fold_of, metric_errors
from hpcjobs.metrics.format import score_lines
from hpcjobs.plugins import contained
from hpcjobs.requests import Completion, Request, Row, SampleError, Target, TaskType
from hpcjobs.run_folder.files import make_folder, write_json, write_whole
from hpcjobs.run_folder.inputs import row_index, user_columns, user_row
from hpcjobs.run_folder.json_columns import python_rows
from hpcjobs.run_folder.metrics_file import Counts, Summary, scored
from hpcjobs.run_folder.verdict import judge_answers
from hpcjobs.tasks.datasets import load_table
from hpcjobs.tasks.few_shot import Pool, TableRows, is_own, pool_table
from hpcjobs.tasks.prompts import Prompts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hpcjobs.connector import AccelerateConnector
    from hpcjobs.engines.base import Source

log = logging.getLogger(__name__)


class Scored(TypedDict):
    """The part of a result that metrics.json is computed from."""

    scores: dict[str, float | None]
    error: dict[str, str] | None
    statistics: NotRequired[dict[str, tuple[float, ...] | str]]
    metric_errors: NotRequired[list[dict[str, str]]]


class Result(Scored):
    """The saved result of a row; it does not depend on the number of processes."""

    index: int
    id: str
    completion: str
    target: Target
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


def load_validation_data(data_file: str, max_samples: int | None = None) -> list[Row]:
    """The first `max_samples` rows (default: all) of an asset, file, folder or hub id, each with `index` and `id`."""
    return [*python_rows(load_table(DataConfig(name=data_file, max_samples=max_samples)))]


def run_inference_with_prompt(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dataset: Iterable[Row], config: Config | None = None
) -> list[Result]:
    """One result per row, in input order, computed by this process alone. The task is that of `config` (default:
    eval.yaml).

    Raises a UsageError if `dataset` has no rows, or rows that cannot be told apart (`checked_rows`).
    """
    from hpcjobs.engines.pick import EngineSpec, make_engine

    config, dataset = config or default_config(), checked_rows(dataset)
    spec = EngineSpec(config.model.engine, config.model.batch_size, task=_task(config))
    engine = make_engine(model, tokenizer, config.task.generation, spec)
    return _run(engine.stream, dataset, config, _pool(config, dataset))


def run_inference_with_accelerate(
    connector: AccelerateConnector, dataset: Iterable[Row], config: Config | None = None
) -> list[Result]:
    """One result per row, in input order, on the main process; an empty list on the others.

    Raises a UsageError on every process if `dataset` is none (`checked_rows`), or not the same on all.
    """
    config, dataset = config or default_config(), checked_rows(dataset)
    engine = connector.engine(task=_task(config))
    mine = _run(engine.stream, connector.split_dataset(dataset), config, _pool(config, dataset))
    return connector.gather_results(mine)


def checked_rows(dataset: object) -> list[Row]:
    """The rows of a list or iterable of dicts, a `datasets`, pandas or pyarrow table, or a dict of columns.

    Rows without `index` get their number, and those without `id` its text. Raises a UsageError for what has no rows,
    and for an `index` that is no number or stands twice.
    """
    rows = [_numbered(row, number) for number, row in enumerate(table_rows(dataset))]
    seen: dict[int, int] = {}
    for number, row in enumerate(rows):
        index = row["index"]
        if not isinstance(index, int) or index in seen:
            why = f"is that of row {seen[index]} too" if isinstance(index, int) else "is no whole number"
            raise UsageError(f"index {index!r} of row {number} {why}: rename the column, and rows get their numbers")
        seen[index] = number
    return rows


def _numbered(row: object, number: int) -> Row:
    if not isinstance(row, Mapping):
        raise UsageError(f"row {number} of the data set is a {type(row).__name__}: a row is a dict of its columns")
    index = row.get("index", number)
    return row if {"index", "id"} <= row.keys() else {**row, "index": index, "id": str(row.get("id", index))}


def _task(config: Config) -> TaskType:
    """The task type for the engine. Raises a UsageError for tasks that need a run folder."""
    if config.task.type == "lm_eval":
        raise UsageError("task.type lm_eval needs a run folder: hpcjobs submit eval --executor local")
    return config.task.type


def default_config() -> Config:
    """The shipped configs/eval.yaml."""
    return resolve("eval", None, None, [])[0]


def _pool(config: Config, dataset: Sequence[Row]) -> Pool | None:
    """The rows for few-shot examples, the same in every process; `dataset` has all rows."""
    shots = config.task.few_shot
    if not shots.k or not dataset:
        return None
    if is_own(shots):
        return Pool(shots, _Listed(dataset), own=True)
    columns = list(dataset[0])
    asked = Prompts(config.task, user_columns(columns)).asked
    pool = pool_table(config, pa.table({name: pa.array([], pa.null()) for name in columns}), asked)
    return None if pool is None else Pool(shots, TableRows(pool), own=False)


class _Listed:
    """Rows in memory, with each value as it is: a table would give objects the keys of other rows."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    @property
    def columns(self) -> list[str]:
        """The column names."""
        return list(self._rows[0])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        return self._rows[index]

    def values(self, name: str) -> list[object]:
        """One column of all rows."""
        return [row.get(name) for row in self._rows]


def _run(
    stream: Callable[[Source], Iterator[Completion]], dataset: Sequence[Row], config: Config, pool: Pool | None
) -> list[Result]:
    if not dataset:
        return []
    prompts, judge = Prompts(config.task, user_columns(dataset[0]), pool), Judge(config.task)
    requests: list[Request] = []
    done: dict[int, Completion] = {}
    for row in dataset:
        try:
            requests.append(prompts.request(row, config.run.seed))
        except Exception as error:  # a template may raise anything; it is this row's problem alone
            done[row_index(row)] = Completion.failed(row_index(row), SampleError.of(error))
    done |= {completion.index: completion for completion in stream(iter(requests))}
    return [_result(row, done[row_index(row)], prompts, judge) for row in dataset]


def _result(row: Row, completion: Completion, prompts: Prompts, judge: Judge) -> Result:
    """The saved result of a row; it does not depend on the number of processes."""
    values, failed = user_row(row), completion.error
    target, scores = _judged(values, completion, prompts, judge)
    sums = {name: score.statistics for name, score in scores.items() if score.statistics is not None}
    result: Result = {
        "index": row_index(row), "id": str(row["id"]), "completion": completion.text, "target": target,
        "finish_reason": completion.finish_reason, "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        "scores": {name: score.number for name, score in scores.items()},
        "error": {"type": failed.type, "message": failed.message} if failed else None,
    }  # fmt: skip
    if sums:
        result["statistics"] = sums
    if unscored := metric_errors(scores):
        result["metric_errors"] = [asdict(error) for error in unscored]
    return result


def _judged(
    values: Row, completion: Completion, prompts: Prompts, judge: Judge
) -> tuple[Target, dict[str, Score]]:
    """The target and the scores by metric; without either where the template fails."""
    if completion.error:
        return None, judge.failed(lambda: prompts.target(values))
    try:
        target = prompts.target(values)
    except Exception as error:  # a template may raise anything
        return None, judge.undecided(error)
    return target, judge.judge(completion, target, values)


def save_results(
    results: Sequence[Scored],
    output_dir: str | Path,
    facts: Mapping[str, object] | None = None,
    metrics: Sequence[Metric] = (),
) -> Path:
    """Write results.jsonl and metrics.json to `output_dir` and return it as a Path.

    metrics.json has the aggregated scores and `facts`. `metrics` are needed for those whose value is not the mean of
    the samples' scores.
    """
    folder = make_folder(Path(output_dir))
    write_whole(folder / "results.jsonl", "".join(json.dumps(result) + "\n" for result in results))
    known = {metric.name: metric for metric in metrics}
    names = dict.fromkeys(name for result in results for name in result["scores"])
    folded = {name: _folded(name, results, known.get(name)) for name in names}
    counts = {
        "rows": len(results), "errors": sum(result["error"] is not None for result in results),
        "metric_errors": sum("metric_errors" in result for result in results),
    }  # fmt: skip
    write_json(folder / "metrics.json", {"metrics": folded, "counts": counts} | dict(facts or {}))
    return folder


def _folded(name: str, results: Sequence[Scored], metric: Metric | None) -> Summary:
    """The summary of one metric's scores; the mean if the metric is unknown."""
    fold: Fold = MeanFold() if metric is None else fold_of(metric)
    kind = getattr(metric, "statistics", None)
    sums = [result.get("statistics", {}).get(name) for result in results]
    scores = np.array([result["scores"][name] for result in results], np.float64)
    fold.add(scores, None if kind is None else pa.array(sums, kind))
    return fold.summary()


def parser() -> argparse.ArgumentParser:
    """The argument parser of the runner."""
    parse = argparse.ArgumentParser(
        prog="hpcjobs.runner", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parse.add_argument("--data_file", default=None, help="asset, file, folder or hub id (default: the config's)")
    parse.add_argument("--max_samples", type=int, default=None, help="only the first N rows")
    parse.add_argument("--use_accelerate", action="store_true", help="split over the processes of accelerate launch")
    parse.add_argument("--model_name", default=None, help="asset, folder or hub id (default: the config's)")
    parse.add_argument("--cache_dir", default=None, help="where hub downloads are kept")
    parse.add_argument("--batch_size", type=int, default=None, help="samples per batch")
    parse.add_argument("--mixed_precision", choices=("no", "bf16", "fp16"), default="bf16", help="dtype on a GPU")
    parse.add_argument("--max_new_tokens", type=int, default=None)
    parse.add_argument("--config", type=Path, default=None, help="YAML as for hpcjobs submit eval")
    parse.add_argument("--set", action="append", default=[], metavar="A.B=C", help="one config value; repeatable")
    parse.add_argument("--output_dir", type=Path, default=None, help="default: runner_results/<data>")
    return parse


def config_of(args: argparse.Namespace) -> Config:
    """The config from the runner's flags, the config file and the defaults."""
    keys = {
        "data.name": args.data_file, "data.max_samples": args.max_samples, "model.name": args.model_name,
        "model.batch_size": args.batch_size, "task.generation.max_new_tokens": args.max_new_tokens,
    }  # fmt: skip
    flags = dotted_layer({key: value for key, value in keys.items() if value is not None}, "a flag of the runner")
    return resolve("eval", args.config, None, [set_layer(args.set), flags])[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the evaluation, save and print its results on the main process, and return the exit code."""
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        with contained():
            return _main(args, config_of(args))
    except HpcJobsError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _main(args: argparse.Namespace, config: Config) -> int:
    rows = python_rows(load_table(config.data))
    if rows:
        Prompts(config.task, user_columns(rows[0]))  # before the model is loaded
    results = _with_accelerate(args, config, rows) if args.use_accelerate else _plain(args, config, rows)
    if results is None:
        return 0
    facts = {"model": config.model.name, "data": config.data.title, "generation": _generation(config.task.generation)}
    output = args.output_dir or Path("runner_results") / Path(config.data.title).stem
    folder = save_results(results, output, facts, Judge(config.task).metrics)
    summary = json.loads((folder / "metrics.json").read_text())
    for line in score_lines(summary["metrics"]):
        print(line)
    counts = Counts.of(summary["counts"] | {"accepted": len(results), "missing": 0})
    unscored = f", {counts.metric_errors} metric errors" if counts.metric_errors else ""
    print(f"{len(results)} results, {counts.errors} errors{unscored}: {folder}")
    verdict = judge_answers(counts, scored(summary["metrics"]), config.run.max_errors)
    if verdict.why:
        print(f"{verdict.state}: {verdict.why}", file=sys.stderr)
    return verdict.exit_code


def _generation(generation: GenerationConfig) -> dict[str, object]:
    return generation.model_dump(mode="json")


def _plain(args: argparse.Namespace, config: Config, rows: Sequence[Row]) -> list[Result]:
    import torch

    from hpcjobs.engines.loader import ModelSource, load_model, precision_dtype, torch_dtype

    model = config.model
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch_dtype(model.dtype) or (None if device == "cpu" else precision_dtype(args.mixed_precision))
    source = ModelSource.of(model, args.cache_dir)
    loaded, tokenizer = load_model(source, device, dtype)
    return run_inference_with_prompt(loaded, tokenizer, rows, config)


def _with_accelerate(args: argparse.Namespace, config: Config, rows: Sequence[Row]) -> list[Result] | None:
    """The results on the main process, None on the others."""
    from hpcjobs.connector import AccelerateConnector, ConnectorOptions
    from hpcjobs.distributed.group import leave_group
    from hpcjobs.engines.loader import torch_dtype

    model = config.model
    options = ConnectorOptions(
        revision=model.revision,
        dtype=torch_dtype(model.dtype),
        trust_remote_code=model.trust_remote_code,
        weights=model.weights,
        gpus_per_rank=model.gpus_per_rank,
    )
    connector = AccelerateConnector(
        model.name, args.cache_dir, model.batch_size, args.mixed_precision, config.task.generation, options
    )
    connector.load_model_once()
    if hint := lone_launch_hint():
        log.warning("%s", hint)
    results = run_inference_with_accelerate(connector, rows, config)
    main_process = connector.is_main_process
    leave_group()
    return results if main_process else None


if __name__ == "__main__":
    sys.exit(main())
