"""Rows of a training that would not be learned as they stand, told from the first ones, without torch or transformers.

The ranks count all of them, with the model's own tokenizer (`training.data.tokens`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import jinja2
import pyarrow as pa

from hpcjobs.config import Config
from hpcjobs.engines.context_length import config_length
from hpcjobs.plan.chat_template import chat_renderer, template_of
from hpcjobs.plan.model import model_folder
from hpcjobs.requests import Chat, Row
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.json_columns import python_rows
from hpcjobs.training.data.examples import Example, Examples, turns_of

_ROWS = 1000
_SHOWN = 3


def row_notes(config: Config, table: pa.Table, examples: Examples) -> list[str]:
    """A note on rows with nothing to learn, and one on those that are too long; none where there are none."""
    rows = python_rows(table.slice(0, _ROWS))
    of = f"of the first {_ROWS} rows" if len(table) > _ROWS else f"of {len(rows)} rows"
    found, left_out = list[tuple[Row, Example]](), list[str]()
    for row in rows:
        try:
            found.append((row, _learnable(examples.example(row))))
        except Exception as error:  # a template may raise anything
            left_out.append(f"{_name(row)}: {error}")
    what = f"{len(left_out)} have nothing to learn and would be left out"
    notes = [f"{of} {what}: {_first(left_out)}"] if left_out else []
    folder = model_folder(config)
    most = _most(config, folder) if folder else 0
    longer = [f"{_name(row)}: {count}" for row, count in _lengths(folder, found) if count > most] if folder else []
    if longer:
        what = f"about {len(longer)} are longer than {most} tokens (train.max_length) and would be truncated"
        notes.append(f"{of} {what}: {_first(longer)}")
    return notes


def _learnable(example: Example) -> Example:
    """The example. Raises a ValueError if it is a chat in which the assistant says nothing."""
    if not isinstance(example.completion, str) and all(turn["role"] != "assistant" for turn in example.completion):
        raise ValueError("the assistant has no turn in it")
    return example


def _most(config: Config, folder: Path) -> int:
    """The longest sample: `train.max_length`, or what the model has positions for."""
    return min(config.train.max_length, config_length(read_json(folder / "config.json")) or config.train.max_length)


def _lengths(folder: Path, examples: Iterable[tuple[Row, Example]]) -> Iterator[tuple[Row, int]]:
    """The tokens of each example by tokenizer.json, but for a few that a tokenizer adds; none without that file."""
    if not (folder / "tokenizer.json").is_file():
        return
    from tokenizers import Tokenizer

    tokenizer, texts = Tokenizer.from_file(str(folder / "tokenizer.json")), list[tuple[Row, str]]()
    tokenizer.no_truncation()

    @functools.cache
    def render() -> Callable[[Chat], str]:
        return chat_renderer(folder, template_of(folder) or "", asks=False)

    for row, example in examples:
        try:
            texts.append((row, _text(example, render)))
        except jinja2.TemplateError:  # the ranks leave it out, and say so
            continue
    made = tokenizer.encode_batch([text for _, text in texts], add_special_tokens=False)
    for (row, _), one in zip(texts, made, strict=True):
        yield row, len(one.ids)


def _text(example: Example, render: Callable[[], Callable[[Chat], str]]) -> str:
    if isinstance(example.context, str) or isinstance(example.completion, str):
        return f"{example.context}{example.completion}"
    return render()(turns_of(example))


def _name(row: Row) -> str:
    return f"row {row['index']} (id {row['id']})"


def _first(names: list[str]) -> str:
    more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return "; ".join([*names[:_SHOWN], *more])
