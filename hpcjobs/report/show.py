"""show: samples of results.parquet as plain text, chosen by id, error or value."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hpcjobs.config.resolve import read_config
from hpcjobs.errors import UsageError, did_you_mean
from hpcjobs.metrics.format import number_text
from hpcjobs.report.row_selection import ShownRow, metric_names, read_rows
from hpcjobs.report.samples import (
    ScoredOption,
    answer_targets,
    as_text,
    failure_of,
    prompt_turns,
    prompts_of,
    scored_options,
)
from hpcjobs.run_folder.inputs import user_row
from hpcjobs.run_folder.job_kinds import check_answers
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.results_file import readable
from hpcjobs.tasks.few_shot import read_pool
from hpcjobs.tasks.prompts import Prompts

_CONDITION = r"\s*({})\s*(<=|>=|==|!=|<|>|=)\s*(\S.*?)\s*"
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "=": operator.eq, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
_NUMBERS = ("prompt_tokens", "completion_tokens")
_BATCH = 8192


@dataclass(frozen=True)
class Condition:
    """`f1<0.5`: a metric or a number of tokens against a number, or `finish_reason=length`."""

    name: str
    sign: str
    value: float | str

    @classmethod
    def parse(cls, text: str, metrics: Collection[str]) -> Condition:
        """Raises a UsageError that says what can be named."""
        names = [*metrics, *_NUMBERS, "finish_reason"]
        known = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
        if not (found := re.fullmatch(_CONDITION.format(f"{known}|[^<>=!]+?"), text)):
            raise UsageError(f"--metric {text!r}: write it as NAME<NUMBER, also with <= > >= = !=; {_listed(names)}")
        name, sign, value = found.groups()
        if name not in names:
            raise UsageError(f"--metric {text!r}: no {name!r} here{did_you_mean(name, names)}; {_listed(names)}")
        if name == "finish_reason":
            if sign not in ("=", "==", "!="):
                raise UsageError(f"--metric {text!r}: finish_reason is a word: compare it by = or !=")
            return cls(name, sign, value)
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if math.isnan(number):
            raise UsageError(f"--metric {text!r}: {value!r} is no number")
        return cls(name, sign, number)

    def holds(self, batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
        """Which rows it holds for; never one without a value."""
        if self.name == "finish_reason":
            words = np.asarray(batch.column("finish_reason").to_pylist(), dtype=object)
            return np.asarray(_COMPARE[self.sign](words, self.value), dtype=bool)
        own = self.name in _NUMBERS
        column = batch.column(self.name) if own else pc.struct_field(batch.column("scores"), self.name)
        values = column.to_numpy(zero_copy_only=False).astype(float)
        found: npt.NDArray[np.bool_] = _COMPARE[self.sign](values, self.value) & ~np.isnan(values)
        return found


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which samples to show: all conditions hold; without any, all samples."""

    ids: Sequence[str] = ()
    errors: bool = False
    conditions: Sequence[str] = ()
    limit: int = 10


@dataclass(frozen=True, kw_only=True)
class ShownSample:
    """A sample: its row of results.parquet, the prompt's turns (role, text), the targets as they were asked for, and
    the options of a choice.
    """

    row: ShownRow
    turns: list[tuple[str, str]]
    targets: list[str]
    options: list[ScoredOption]

    def lines(self) -> Iterator[str]:
        """The sample as text."""
        row = self.row
        scores = "  ".join(
            f"{name} {'none' if value is None else number_text(value)}"
            for name, value in (row.get("scores") or {}).items()
        )
        yield f"# {row['id']}  (row {row['index']})  {scores}".rstrip()
        for role, text in self.turns:
            yield from _labelled(role, text)
        for target in self.targets:
            yield from _labelled("target", target)
        for one in self.options:
            yield from _labelled(f"option ({number_text(one.logprob)})", one.text)
        tokens = row["completion_tokens"]
        if row["completion"] or self.targets:
            how = f"{row['finish_reason']}, {tokens} tokens" if tokens else row["finish_reason"]
            yield from _labelled(f"answer ({how})", row["completion"])
        for further in (row.get("completions") or [])[1:]:
            yield from _labelled("answer", further)
        if failed := failure_of(row):
            yield from _labelled(f"error {failed[0]}", failed[1])

    def values(self) -> dict[str, Any]:
        """The sample as JSON values: its row, with `prompt` and `targets`."""
        turns = [{"role": role, "content": text} for role, text in self.turns]
        return {**self.row, "prompt": turns, "targets": self.targets}


@dataclass(frozen=True)
class Found:
    """The samples to show, and how many there are of the kind."""

    samples: Iterator[ShownSample]
    total: int


def find_samples(paths: RunPaths, wanted: Wanted) -> Found:
    """The samples that are wanted, in input order. Of the table only what decides is read whole.

    Raises a UsageError for a run without results, an id that is not there, or a wrong condition.
    """
    check_answers(paths, "show")
    if not paths.results.exists():
        raise UsageError(f"{paths.root.name} has no results yet; next: hpcjobs merge {paths.root.name}")
    with readable(paths):
        file = pq.ParquetFile(paths.results)
        metrics = metric_names(file)
        numbers, total = _numbers(file, wanted, [Condition.parse(text, metrics) for text in wanted.conditions])
    return Found(_read(paths, numbers), total)


def _numbers(file: pq.ParquetFile, wanted: Wanted, conditions: Sequence[Condition]) -> tuple[list[int], int]:
    """The row numbers to show, and how many rows there are of the kind."""
    names = set(file.schema_arrow.names)
    columns = {"id"} | ({"error", "metric_errors"} & names if wanted.errors else set())
    for one in conditions:
        columns.add(one.name if one.name in (*_NUMBERS, "finish_reason") else "scores")
    found, total, start, seen = list[int](), 0, 0, set[str]()
    for batch in file.iter_batches(_BATCH, columns=sorted(columns)):
        fits = np.ones(batch.num_rows, bool)
        if wanted.ids:
            ids = batch.column("id").to_pylist()
            seen |= set(ids) & set(wanted.ids)
            fits &= np.fromiter((one in wanted.ids for one in ids), bool, batch.num_rows)
        if wanted.errors:
            fits &= _failed(batch)
        for one in conditions:
            fits &= one.holds(batch)
        rows = np.flatnonzero(fits) + start
        found += rows[: max(wanted.limit - len(found), 0)].tolist()
        total, start = total + len(rows), start + batch.num_rows
    if unknown := [one for one in wanted.ids if one not in seen]:
        raise UsageError(f"no sample {unknown[0]!r} has a result; ids are those of missing.jsonl and results.parquet")
    return found, total


def _failed(batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    wrong: npt.NDArray[np.bool_] = np.asarray(pc.is_valid(batch.column("error")))
    if "metric_errors" in batch.schema.names:
        lengths = pc.fill_null(pc.list_value_length(batch.column("metric_errors")), 0)
        wrong = wrong | (np.asarray(lengths) > 0)
    return wrong


def _read(paths: RunPaths, numbers: Sequence[int]) -> Iterator[ShownSample]:
    task = read_config(paths.config).task
    with readable(paths):
        schema = pq.read_schema(paths.results)
        prompts = prompts_of(task, schema, read_pool(paths, task.few_shot)) if numbers else None
        for _, row in read_rows(paths.results, numbers):
            yield _shown(row, prompts, task.type)


def _shown(row: ShownRow, prompts: Prompts | None, kind: str) -> ShownSample:
    values = user_row({"index": row["index"], "id": row["id"], **(row.get("input") or {})})
    turns = prompt_turns(values, prompts, row["id"])
    if not turns:  # of a task whose prompts are made elsewhere: the columns show what was asked
        turns = [(name, as_text(value)) for name, value in values.items() if name not in ("index", "id")]
    if kind == "perplexity":  # the text is the prompt, and nothing is answered
        return ShownSample(row=row, turns=turns, targets=[], options=[])
    options = scored_options(values, row.get("choice_logprobs") or [], prompts)
    right = [one.text for one in options if one.right]
    return ShownSample(row=row, turns=turns, targets=right or answer_targets(values, prompts), options=options)


def _labelled(label: str, text: str) -> Iterator[str]:
    yield f"{label}:" if "\n" in text else f"{label}: {text}"
    if "\n" in text:
        yield from (f"    {line}" for line in text.split("\n"))


def _listed(names: Sequence[str]) -> str:
    return f"there are {', '.join(names)}"
