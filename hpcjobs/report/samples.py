"""Rows of results.parquet and missing.jsonl as text."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hpcjobs.config import TaskConfig
from hpcjobs.errors import HpcJobsError
from hpcjobs.report.row_selection import ShownRow, pick_rows, read_rows
from hpcjobs.report.text import Cut
from hpcjobs.requests import Row, Turn
from hpcjobs.run_folder.inputs import user_row
from hpcjobs.tasks.few_shot import Pool
from hpcjobs.tasks.prompts import Prompts

MOST_MISSING = 50
_COLUMNS_SHOWN = 40


@dataclass(frozen=True)
class Option:
    """One option of a multiple-choice row: letter, text, and log-likelihood as text."""

    letter: str
    text: Cut
    logprob: str
    right: bool
    likeliest: bool


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One row: prompt, answer and scores. Turns are (role, text), columns (name, text).

    `answers` are the further ones, if there are several.
    """

    index: int
    id: Cut
    turns: list[tuple[str, Cut]]
    columns: list[tuple[str, Cut]]
    targets: list[Cut]
    completion: Cut
    finish_reason: str
    tokens: int
    scores: list[tuple[str, str]]
    error: tuple[str, Cut] | None
    options: list[Option]
    answers: list[Cut]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The rows shown, and how many there are; `metric` decided which are worst, `lowest` rows tie for the worst."""

    failed: list[Sample]
    failed_in_all: int
    worst: list[Sample]
    lowest: int
    metric: str
    lower_is_better: bool
    spread: list[Sample]


@dataclass(frozen=True)
class Missing:
    """The first missing rows (index, id, reason), and their number."""

    rows: list[tuple[int, Cut, Cut]]
    total: int


def read_missing(path: Path) -> Missing:
    """The first rows of missing.jsonl and its length; empty if there is no such file."""
    if not path.exists():
        return Missing([], 0)
    with path.open("rb") as file:
        lines = [json.loads(line) for line in itertools.islice(file, MOST_MISSING)]
        total = len(lines) + sum(1 for _ in file)
    return Missing([(line["index"], Cut.of(line["id"]), Cut.of(line["reason"])) for line in lines], total)


def read_samples(path: Path, task: TaskConfig, pool: Pool | None = None, lower: Collection[str] = ()) -> Samples:
    """The rows of results.parquet to show. `pool` has the few-shot examples of their prompts; of the metrics in
    `lower`, lower values are better.
    """
    selection = pick_rows(path, lower)
    prompts = prompts_of(task, pq.read_schema(path), pool)
    rows = {number: _sample(row, prompts) for number, row in read_rows(path, sorted(selection.rows))}
    shown = (selection.failed, selection.worst, selection.spread)
    failed, worst, spread = ([rows[n] for n in numbers] for numbers in shown)
    return Samples(
        failed=failed,
        failed_in_all=selection.failed_in_all,
        worst=worst,
        lowest=selection.worst_in_all,
        metric=selection.metric,
        lower_is_better=selection.metric in lower,
        spread=spread,
    )


def prompts_of(task: TaskConfig, results: pa.Schema, pool: Pool | None) -> Prompts | None:
    """What makes the prompts of rows of results.parquet; None if config and table do not go together."""
    names = [field.name for field in results.field("input").type] if "input" in results.names else []
    try:
        return Prompts(task, ["index", "id", *(name.removeprefix("source_") for name in names)], pool)
    except HpcJobsError:
        return None  # the config was changed by hand: the columns still show what was asked


def _sample(row: ShownRow, prompts: Prompts | None) -> Sample:
    values = user_row({"index": row["index"], "id": row["id"], **(row.get("input") or {})})
    scores = [(name, "none" if value is None else f"{value:.4g}") for name, value in (row.get("scores") or {}).items()]
    own = {name: value for name, value in values.items() if name != "index" and value != row["id"]}
    columns = [(name, Cut.of(as_text(value))) for name, value in list(own.items())[:_COLUMNS_SHOWN]]
    return Sample(
        index=row["index"],
        id=Cut.of(row["id"]),
        turns=[(role, Cut.of(text)) for role, text in prompt_turns(values, prompts, row["id"])],
        columns=columns,
        targets=[Cut.of(text) for text in answer_targets(values, prompts)],
        completion=Cut.of(row["completion"]),
        finish_reason=row["finish_reason"],
        tokens=row["completion_tokens"],
        scores=scores,
        error=_error(row),
        options=_options(values, row.get("choice_logprobs") or [], prompts),
        answers=[Cut.of(text) for text in (row.get("completions") or [])[1:]],
    )


def _error(row: ShownRow) -> tuple[str, Cut] | None:
    failed = failure_of(row)
    return (failed[0], Cut.of(failed[1])) if failed else None


def failure_of(row: ShownRow) -> tuple[str, str] | None:
    """Why there is no completion, or no score of it: the error's type, or the metrics, and its text."""
    if failed := row["error"]:
        return failed["type"], failed["message"]
    unscored = row.get("metric_errors") or []
    texts = [f"{one['type']}: {one['message']}" for one in unscored]
    return (", ".join(one["metric"] for one in unscored), "; ".join(dict.fromkeys(texts))) if unscored else None


def _options(values: Row, logprobs: Sequence[float], prompts: Prompts | None) -> list[Option]:
    found = scored_options(values, logprobs, prompts)
    best = max((one.logprob for one in found), default=0.0)
    first = next((n for n, one in enumerate(found) if one.logprob == best), 0)
    return [
        Option(letter(n), Cut.of(one.text), f"{one.logprob:.2f}", one.right, n == first) for n, one in enumerate(found)
    ]


@dataclass(frozen=True)
class ScoredOption:
    """An option of a choice: its text, its log-likelihood, and whether it is correct."""

    text: str
    logprob: float
    right: bool


def scored_options(values: Row, logprobs: Sequence[float], prompts: Prompts | None) -> list[ScoredOption]:
    """The options with their scores; empty if config or row no longer match."""
    try:
        texts = prompts.options(values) if prompts else []
        target = prompts.target(values) if prompts else None
    except Exception:  # a template may raise anything
        return []
    if not texts or len(texts) != len(logprobs):
        return []
    right = target if isinstance(target, list) else [target]
    return [ScoredOption(text, one, n in right) for n, (text, one) in enumerate(zip(texts, logprobs, strict=True))]


def letter(number: int) -> str:
    """A for 0, B for 1...; above Z the number counted from 1."""
    return chr(ord("A") + number) if number < 26 else str(number + 1)


def prompt_turns(values: Row, prompts: Prompts | None, sample: str) -> list[tuple[str, str]]:
    """The turns of a row's prompt, as (role, text)."""
    try:
        prompt = prompts.prompt(values, sample) if prompts else []
    except Exception as problem:  # a template may raise anything
        return [("no prompt", f"the template fails on this row: {problem}")]
    turns = [{"role": "prompt", "content": prompt}] if isinstance(prompt, str) else prompt
    return [(turn["role"], _said(turn)) for turn in turns]


def _said(turn: Turn) -> str:
    """The content of a turn, and its calls of tools as JSON."""
    calls = json.dumps(turn["tool_calls"], ensure_ascii=False) if turn.get("tool_calls") else None
    return "\n".join(filter(None, [turn.get("content"), calls]))


def answer_targets(values: Row, prompts: Prompts | None) -> list[str]:
    """The targets of a row."""
    try:
        target = prompts.target(values) if prompts else None
    except Exception as problem:  # a template may raise anything
        return [f"the template fails on this row: {problem}"]
    targets = target if isinstance(target, list) else [] if target is None else [target]
    return [str(one) for one in targets]


def as_text(value: object) -> str:
    """A value of a row: texts as they are, others as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except ValueError:
        return str(value)
