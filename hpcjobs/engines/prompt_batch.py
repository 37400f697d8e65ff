"""The prompts that a program passes in one call, checked before the model runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hpcjobs.errors import UsageError
from hpcjobs.requests import Prompt, SampleError

MISSING = SampleError("ValueError", "there is no prompt: the item is None, or a chat without turns")


def prompt_batch(prompts: Iterable[object]) -> list[Prompt | None]:
    """The prompts in their order, each a text or a list of turns; None for a missing value (None, NaN, no turns).

    Raises a UsageError for one text or chat instead of several, and for what is no prompt.
    """
    if isinstance(prompts, str | bytes):
        raise UsageError("complete_batch: this is one text: call complete(text), or pass [text]")
    if isinstance(prompts, Mapping | set | frozenset) or hasattr(prompts, "columns"):
        raise UsageError(
            f"complete_batch: a {type(prompts).__name__} is no list of prompts: pass a text or a chat for each"
        )
    if hasattr(prompts, "to_pylist"):  # a column of pyarrow
        prompts = prompts.to_pylist()
    try:
        items = list(prompts)
    except TypeError:
        raise UsageError(f"complete_batch: a {type(prompts).__name__} is no list of prompts") from None
    if items and all(isinstance(item, Mapping) and "role" in item for item in items):
        raise UsageError("complete_batch: this is one chat: call complete(chat), or pass [chat]")
    return [_prompt(item, number) for number, item in enumerate(items)]


def _prompt(item: Any, number: int) -> Prompt | None:
    if isinstance(item, str):
        return str(item)
    if item is None or (isinstance(item, float) and item != item):  # pandas has NaN where a text is missing
        return None
    turns = list(item) if _is_sequence(item) else [item]
    if _is_sequence(item) and all(isinstance(turn, Mapping) for turn in turns):
        return (item if isinstance(item, list) else turns) or None
    kind = f"a {type(item).__name__}"
    if _is_sequence(item) and turns and all(isinstance(turn, str) for turn in turns):
        kind += " of texts: several prompts go to complete_batch as one list"
    elif isinstance(item, Mapping):
        kind += ": pass what is asked of a row, such as row['question']"
    raise UsageError(f"prompt {number} is {kind}; a prompt is a text, or a chat: a list of {{'role', 'content'}} dicts")


def _is_sequence(item: object) -> bool:
    """A list, or what libraries give for one: pandas has arrays of turns."""
    if isinstance(item, str | bytes | Mapping):
        return False
    return isinstance(item, Sequence) or (hasattr(item, "tolist") and getattr(item, "ndim", 0) == 1)
