"""Prompts that are too long for the model, found when planning: on the login node, without torch or transformers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hpcjobs.config import Config, GenerationConfig
from hpcjobs.engines.context_length import config_length
from hpcjobs.engines.lengths import named_dynamic_factor
from hpcjobs.errors import ConfigError
from hpcjobs.plan.model import model_folder
from hpcjobs.plan.prompt_tokens import prompt_tokens
from hpcjobs.requests import Prompt, Request, Row
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.json_columns import python_rows

# The most rows that are looked at, those with the longest columns, and their characters: some seconds of work.
_MOST_ROWS = 1000
_MOST_CHARACTERS = 1 << 23
_IDS_SHOWN = 3
# Of a text that is far too long the beginning will do: so many characters for each of the model's positions.
_CHARACTERS = 16


def length_notes(
    config: Config, table: pa.Table, work: npt.NDArray[np.int64], request_of: Callable[[Row], Request]
) -> list[str]:
    """A note on the rows whose prompts are too long, if config.json and tokenizer.json of the model are here.

    `work` is the expected work by row. Rows that `request_of` or the chat template fails on are errors of their own.
    Raises a ConfigError if the new tokens leave no room for any prompt.
    """
    folder = model_folder(config)
    if folder is None or not (folder / "tokenizer.json").is_file():
        return []
    model = read_json(folder / "config.json")
    positions = config_length(model)
    if positions is None:
        return []
    beyond = int(positions * named_dynamic_factor(model))
    longest = _longest(np.minimum(work, _CHARACTERS * beyond))
    room, long = _Room(folder, positions, beyond, config.task.generation), list[Request]()
    for request in _requests(table, longest.tolist(), request_of):
        if request.task == "perplexity":  # of any length: it is scored in windows
            continue
        most = room.most(request)
        with contextlib.suppress(Exception):  # a template may raise anything
            if room.exceeded(request, most):
                long.append(request)
    rows = f"{len(table)} rows" if len(longest) == len(table) else f"the {len(longest)} longest of {len(table)} rows"
    return [_note(long, rows, positions if _is_cut(long[0]) else beyond)] if long else []


def _longest(work: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The places of the rows to look at, in order."""
    order = np.argsort(-work, kind="stable")[:_MOST_ROWS]
    few = int(np.searchsorted(np.cumsum(work[order]), _MOST_CHARACTERS, "right"))
    return np.sort(order[: max(1, few)])


def _requests(table: pa.Table, places: list[int], request_of: Callable[[Row], Request]) -> Iterator[Request]:
    for place in places:
        with contextlib.suppress(Exception):
            yield request_of(python_rows(table.slice(place, 1))[0])


def _note(long: list[Request], rows: str, positions: int) -> str:
    ids = ", ".join(repr(one.id) for one in long[:_IDS_SHOWN]) + (", ..." if len(long) > _IDS_SHOWN else "")
    then = "their beginnings are cut off" if _is_cut(long[0]) else "they end in errors; task.truncate: left cuts them"
    return f"the prompts of {len(long)} of {rows} are too long for the model's {positions} positions ({ids}): {then}"


def _is_cut(request: Request) -> bool:
    return request.truncate == "left" or (request.task == "choice" and request.truncate is None)


class _Room:
    """Counts tokens as the ranks do, and says how many a prompt may have in the model in `folder`.

    `beyond` are the positions that answers may reach with dynamic rotary embeddings; else `positions`.
    """

    def __init__(self, folder: Path, positions: int, beyond: int, generation: GenerationConfig) -> None:
        self._tokens = prompt_tokens(folder)
        self._positions, self._beyond, self._generation = positions, beyond, generation

    def most(self, request: Request) -> int:
        """The most tokens that are neither cut nor refused, those of an option included. Raises a ConfigError."""
        if request.task == "choice":
            return self._positions + 1  # the last token is only predicted
        if request.truncate != "left":
            return self._beyond - 1
        new = (request.generation or self._generation).max_new_tokens
        if new >= self._positions:
            raise ConfigError(
                f"{new} new tokens leave no room for a prompt in the model's {self._positions} positions: set "
                "task.generation.max_new_tokens lower"
            )
        return self._positions - new

    def exceeded(self, request: Request, most: int) -> bool:
        """Whether a prompt, or one with an option, has more than `most` tokens."""
        if request.task == "choice":
            return any(self._exceeds(pair.context, pair.continuation, most) for pair in request.pairs)
        return self._exceeds(request.prompt, "", most)

    def _exceeds(self, prompt: Prompt, option: str, most: int) -> bool:
        text, special = self._tokens.text(prompt)
        if option and not text:  # one token stands before it
            most, special = most - 1, False
        text += option
        head = text[: _CHARACTERS * self._beyond]
        if len(head) < len(text) and self._tokens.count(head, special) > most + 2:  # a token or two differ at the cut
            return True
        return self._tokens.count(text, special) > most
