"""Chats from columns: turns as a chat template takes them, with the row's tools and documents."""

from __future__ import annotations

import json
from typing import Any

from hpcjobs.requests import Prompt, Row, ToolChat, Turn

# Columns that go to the chat template beside a chat of the row's own.
TEMPLATE_COLUMNS = ("tools", "documents")


def chat_or_text(value: object) -> Prompt:
    """A prompt from a column: a text, or a chat whose turns have role and content. Raises a ValueError for others.

    Other keys of a turn (`tool_calls`, `name`...) are passed to the chat template, and so is content that is null.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        return [_turn_of(turn, number) for number, turn in enumerate(value)]
    raise ValueError(f"neither a text nor a chat: {value!r}"[:300])


def prompt_of(row: Row, column: str) -> Prompt:
    """`chat_or_text` of a column. A chat has the row's `tools` and `documents`, as transformers' templates take them.

    They are lists, or their JSON as a text (TRL writes tools so). Raises a ValueError for others.
    """
    prompt = chat_or_text(row[column])
    if isinstance(prompt, str):
        return prompt
    values = {name: _listed(row[name], name) for name in TEMPLATE_COLUMNS if row.get(name) is not None}
    return ToolChat(prompt, values) if values else prompt


def _listed(value: object, name: str) -> list[object]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError(f"column {name!r} of a row with a chat is no JSON: {value!r}"[:300]) from None
    if not isinstance(value, list):
        raise ValueError(f"column {name!r} of a row with a chat is no list: {value!r}"[:300])
    return value


def _turn_of(turn: Turn, number: int) -> Turn:
    """A turn, with the text parts of its content joined. Raises a ValueError for parts that are not text."""
    if not isinstance(turn.get("role"), str) or ("content" not in turn and not turn.get("tool_calls")):
        raise ValueError(f"turn {number} of the chat has no role and content: {turn!r}"[:300])
    if "content" not in turn:  # as OpenAI's clients write a turn that only calls tools
        return dict(turn)
    content = turn["content"]
    if isinstance(content, list):
        content = "".join(_text_part(part, number) for part in content)
    if content is not None and not isinstance(content, str):
        raise ValueError(f"turn {number} of the chat has content that is neither a text nor parts: {content!r}"[:300])
    return {**turn, "content": content}


def _text_part(part: Any, number: int) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, dict) else part
    raise ValueError(f"turn {number} of the chat has a part of type {kind!r}: only parts of type text are read"[:300])
