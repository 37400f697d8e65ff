"""Score again what results.parquet has: what is the same for runs of own tasks and of lm_eval's."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hpcjobs.merge.earlier import rescored
from hpcjobs.merge.failures import Failures, Mask, is_of_failures
from hpcjobs.merge.results import ResultRow
from hpcjobs.metrics import Aggregator, Score, metric_errors
from hpcjobs.requests import Completion, Likelihood
from hpcjobs.run_folder.journal.table import storable
from hpcjobs.run_folder.metrics_file import with_verdict

_READ = [
    "index", "completion", "finish_reason", "prompt_tokens", "completion_tokens", "error",
    "completions", "choice_logprobs", "choice_greedy", "choice_tokens",
]  # fmt: skip


def answered(table: pa.Table) -> list[ResultRow]:
    """The rows of results.parquet, with the columns needed to score them."""
    rows: list[ResultRow] = table.select([name for name in _READ if name in table.column_names]).to_pylist()
    return rows


def answer_of(row: ResultRow, options: tuple[str, ...] = ()) -> Completion:
    """The answer as it stands in a row; `options` are the texts of the options, if it chose among any."""
    likelihood = None
    if row.get("choice_logprobs"):
        logprobs = tuple(-math.inf if value is None else value for value in row["choice_logprobs"] or ())
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


def scored(table: pa.Table, scores: Sequence[dict[str, Score]], without: Mask, schema: pa.Schema) -> pa.Table:
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


def told_again(
    summary: dict[str, Any],
    aggregator: Aggregator,
    failures: Failures,
    said: Sequence[str],
    used: Mapping[str, object],
    same_target: bool,
) -> dict[str, Any]:
    """metrics.json with the new values and counts, the warnings `said` of them, and what was `used` to score."""
    counts = {"errors": failures.errors, "metric_errors": failures.metric_errors}
    kept = [line for line in summary["warnings"] if not is_of_failures(line)]
    summary = summary | {"counts": summary["counts"] | counts, "warnings": [*kept, *said]}
    summary = rescored(summary, aggregator.summary(), same_target)
    summary["provenance"] |= {"rescored_at": time.time(), "rescored_with": used}
    return with_verdict(aggregator.told(summary))
