"""Render chats with the model's chat template; a turn that it would change or drop is an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hpcjobs.requests import Turn, template_values, turns_like, without_value


def chat_text(tokenizer: Any, chat: Sequence[Turn], ask: bool) -> str:
    """The text of a chat; with `ask`, including the generation prompt.

    Raises what the template raises, and a ValueError for a turn without content that it renders as "None", or whose
    `tool_calls` it drops, and for the row's `tools` or `documents` that it drops.
    """
    text = _render(tokenizer, chat, ask)
    if name := left_out(chat, text, lambda turns: _render(tokenizer, turns, ask)):
        raise ValueError(f"the chat template leaves out the row's {name}: rename or drop that column")
    if any(turn["content"] is None for turn in chat):
        _check_empty_turns(tokenizer, chat, ask, text)
    for number, turn in enumerate(chat):
        if turn.get("tool_calls") and text == _render(tokenizer, _without_calls(chat, number), ask):
            raise ValueError(f"the chat template leaves out the tool_calls of turn {number} ({turn['role']})")
    return text


def left_out(chat: Sequence[Turn], text: str, render: Callable[[Sequence[Turn]], str]) -> str | None:
    """The first of the chat's template values, such as its tools, that its `text` has nothing of; None without one."""
    values = (name for name, value in template_values(chat).items() if value)
    return next((name for name in values if render(without_value(chat, name)) == text), None)


def _render(tokenizer: Any, chat: Sequence[Turn], ask: bool) -> str:
    values = template_values(chat)
    return str(tokenizer.apply_chat_template(list(chat), add_generation_prompt=ask, tokenize=False, **values))


def _check_empty_turns(tokenizer: Any, chat: Sequence[Turn], ask: bool, text: str) -> None:
    for number, turn in enumerate(chat):
        if turn["content"] is None and text == _render(tokenizer, _replaced(chat, number, {"content": "None"}), ask):
            raise ValueError(
                f"turn {number} ({turn['role']}) has no content, and the chat template writes it as the word 'None'"
            )


def _without_calls(chat: Sequence[Turn], number: int) -> list[Turn]:
    calls = {"tool_calls": None, "content": chat[number]["content"] or ""}
    return _replaced(chat, number, calls if chat[number]["content"] is None else {"tool_calls": None})


def _replaced(chat: Sequence[Turn], number: int, values: dict[str, Any]) -> list[Turn]:
    changed = {**chat[number], **values}
    turn = {key: value for key, value in changed.items() if key != "tool_calls" or value is not None}
    return turns_like(chat, [*chat[:number], turn, *chat[number + 1 :]])
