"""Chats from columns: turns as a chat template takes them, with the row's tools and documents."""

from __future__ import annotations

import json
import re

from hpcjobs.requests import Prompt, Row, ToolChat, Turn, template_values

# Columns that go to the chat template beside a chat of the row's own.
TEMPLATE_COLUMNS = ("tools", "documents")


# The beginning of a chat written as a text, and what every turn of one has: in JSON, or as Python prints it.
_OPENS = re.compile(r"\s*[\[{]\s*[{'\"]")
_WHO = "user|assistant|system|developer|tool|function|ipython|model|human|gpt|bot"
_TURN = re.compile(rf"""(["'])(role|from)\1\s*:\s*(["'])({_WHO})\3""")
_SAYS = re.compile(r"""(["'])(content|value|tool_calls)\1\s*:""")


def chat_or_text(value: object, column: str) -> Prompt:
    """A prompt from a column: a text, or a chat whose turns have role and content. Raises a ValueError for others.

    Other keys of a turn (`tool_calls`, `name`...) are passed to the chat template, and so is content that is null.
    """
    if isinstance(value, str):
        _check_no_chat(value, column)
        return value
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        return [_turn_of(turn, number) for number, turn in enumerate(value)]
    raise ValueError(f"column {column!r} has neither a text nor a chat: {value!r}"[:300])


def _check_no_chat(text: str, column: str) -> None:
    """Raise a ValueError for a text that is a chat: as a text it would be asked without the chat template."""
    if not _OPENS.match(text) or not (turn := _TURN.search(text)) or not _SAYS.search(text):
        return
    how = "as JSON text" if turn[1] == '"' else "as Python prints it, which is no JSON"
    then = f"set data.types: {{{column}: json}}" if turn[1] == '"' else "write the file again with JSON in that column"
    raise ValueError(
        f"column {column!r} has a chat {how}: {then}; to ask it as the text that it is, set task.prompt: "
        f"'{{{{ {column} }}}}'"
    )


def prompt_of(row: Row, column: str) -> Prompt:
    """`chat_or_text` of a column. A chat has the row's `tools` and `documents`, as transformers' templates take them.

    They are lists, or their JSON as a text (TRL writes tools so). Raises a ValueError for others.
    """
    prompt = chat_or_text(row[column], column)
    if isinstance(prompt, str):
        return prompt
    values = {name: _listed(row[name], name) for name in TEMPLATE_COLUMNS if row.get(name) is not None}
    return ToolChat(prompt, values) if values else prompt


def unused_columns(row: Row, prompt: Prompt) -> list[str]:
    """The row's tools and documents that its prompt has not got, though they are such."""
    return [
        name
        for name in TEMPLATE_COLUMNS
        if name not in (template_values(prompt) if not isinstance(prompt, str) else {}) and _is_listed(row.get(name))
    ]


def _is_listed(value: object) -> bool:
    try:
        return bool(_listed(value, ""))
    except ValueError:
        return False


def _listed(value: object, name: str) -> list[object]:
    if isinstance(text := value, str):
        try:
            value = json.loads(text)
        except ValueError:
            how = "" if text.strip() else f"; with data.types: {{{name}: json}} an empty one is null"
            raise ValueError(f"column {name!r} of a row with a chat is no JSON: {text!r}"[:300] + how) from None
    if not isinstance(value, list):
        raise ValueError(f"column {name!r} of a row with a chat is no list: {value!r}"[:300])
    if not all(isinstance(one, dict) for one in value):  # as transformers refuses it
        raise ValueError(f"column {name!r} of a row with a chat has items that are no objects: {value!r}"[:300])
    _check_json(value, f"column {name!r} of a row with a chat")
    return value


def _check_json(value: object, where: str) -> None:
    """Raise a ValueError for a value that no JSON has: transformers would write the name of its type, `<datetime>`."""
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            _check_json(one, where)
    elif not isinstance(value, str | int | float | None):
        kind = "a map, not an object" if isinstance(value, tuple) else f"of type {type(value).__name__}"
        raise ValueError(f"{where} has a value that is {kind}: no chat template can write {value!r}"[:300])


def _turn_of(turn: Turn, number: int) -> Turn:
    """A turn, with the text parts of its content joined. Raises a ValueError for parts that are not text."""
    if not isinstance(turn.get("role"), str) or ("content" not in turn and not turn.get("tool_calls")):
        raise ValueError(f"turn {number} of the chat has no role and content: {turn!r}"[:300])
    _check_json(turn.get("tool_calls"), f"tool_calls of turn {number} of the chat")
    if "content" not in turn:  # as OpenAI's clients write a turn that only calls tools
        return dict(turn)
    content = turn["content"]
    if isinstance(content, list):
        content = "".join(_text_part(part, number) for part in content)
    if content is not None and not isinstance(content, str):
        raise ValueError(f"turn {number} of the chat has content that is neither a text nor parts: {content!r}"[:300])
    return {**turn, "content": content}


def _text_part(part: object, number: int) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, dict) else part
    raise ValueError(f"turn {number} of the chat has a part of type {kind!r}: only parts of type text are read"[:300])
