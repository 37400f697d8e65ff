"""Rows of a training that would not be learned as they stand, told from the first ones, without torch or transformers.

The ranks count all of them, with the model's own tokenizer (`training.data.tokens`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from hpcjobs.config import Config
from hpcjobs.engines.chat_template import checked_text
from hpcjobs.engines.context_length import config_length
from hpcjobs.errors import DataError
from hpcjobs.plan.chat_template import chat_renderer
from hpcjobs.plan.model import model_folder
from hpcjobs.requests import Row
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.json_columns import python_rows
from hpcjobs.training.data.examples import Example, Examples, turns_of
from hpcjobs.training.data.pieces import Rendered, chat_pieces

_ROWS = 1000
_SHOWN = 3


def row_notes(config: Config, table: pa.Table, examples: Examples) -> list[str]:
    """A note on rows with nothing to learn, and one on those that are too long; none where there are none.

    Raises a DataError if no row has anything to learn.
    """
    folder = model_folder(config)
    render = _renderer(folder) if folder else None
    rows = python_rows(table.slice(0, _ROWS))
    of = f"of the first {_ROWS} rows" if len(table) > _ROWS else f"of {len(rows)} rows"
    found, left_out = list[tuple[Row, Example]](), list[str]()
    for row in rows:
        try:
            found.append((row, _learnable(examples.example(row), render)))
        except Exception as error:  # a template may raise anything
            left_out.append(f"{_name(row)}: {error}")
    if len(left_out) == len(table):
        raise DataError(f"none of {len(rows)} rows can be learned from: {_first(left_out)}")
    what = f"{len(left_out)} have nothing to learn and would be left out"
    notes = [f"{of} {what}: {_first(left_out)}"] if left_out else []
    most = _most(config, folder) if folder else 0
    longer = [f"{_name(row)}: {count}" for row, count in _lengths(folder, render, found) if count > most]
    if longer:
        what = f"about {len(longer)} are longer than {most} tokens (train.max_length) and would be truncated"
        notes.append(f"{of} {what}: {_first(longer)}")
    return notes


def _renderer(folder: Path) -> Rendered:
    """The text of a chat as the ranks make it, with or without the question for an answer."""
    renders = {asks: chat_renderer(folder, asks) for asks in (True, False)}
    return lambda chat, asks: checked_text(chat, renders[asks])


def _learnable(example: Example, render: Rendered | None) -> Example:
    """The example. Raises a ValueError if it is a chat of which nothing can be learned."""
    if isinstance(example.context, str) or isinstance(example.completion, str):
        return example
    if all(turn["role"] != "assistant" for turn in example.completion):
        raise ValueError("the assistant has no turn in it")
    if render is not None:
        list(chat_pieces(turns_of(example), len(example.context), render))
    return example


def _most(config: Config, folder: Path) -> int:
    """The longest sample: `train.max_length`, or what the model has positions for."""
    return min(config.train.max_length, config_length(read_json(folder / "config.json")) or config.train.max_length)


def _lengths(
    folder: Path | None, render: Rendered | None, examples: Iterable[tuple[Row, Example]]
) -> Iterator[tuple[Row, int]]:
    """The tokens of each example by tokenizer.json, but for a few that a tokenizer adds; none without that file."""
    if folder is None or render is None or not (folder / "tokenizer.json").is_file():
        return
    from tokenizers import Tokenizer

    tokenizer, learned = Tokenizer.from_file(str(folder / "tokenizer.json")), list(examples)
    tokenizer.no_truncation()
    made = tokenizer.encode_batch([_text(example, render) for _, example in learned], add_special_tokens=False)
    for (row, _), one in zip(learned, made, strict=True):
        yield row, len(one.ids)


def _text(example: Example, render: Rendered) -> str:
    if isinstance(example.context, str) or isinstance(example.completion, str):
        return f"{example.context}{example.completion}"
    return render(turns_of(example), False)


def _name(row: Row) -> str:
    return f"row {row['index']} (id {row['id']})"


def _first(names: list[str]) -> str:
    more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return "; ".join([*names[:_SHOWN], *more])
