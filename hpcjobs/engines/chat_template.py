"""Render chats with the model's chat template; a turn that it would change or drop is an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hpcjobs.requests import Chat, ToolChat, Turn, template_values, turns_like

# Names under which data has a turn's reasoning; templates read the first, gpt-oss's the second.
_REASONING = ("reasoning_content", "thinking", "reasoning")
# Where a turn has what the assistant calls; the second is OpenAI's earlier name, which few templates know.
_CALLS = ("tool_calls", "function_call")
Render = Callable[[Sequence[Turn]], str]


def chat_text(tokenizer: object, chat: Sequence[Turn], ask: bool) -> str:
    """The text of a chat; with `ask`, including the generation prompt. Raises what `checked_text` raises."""
    return checked_text(chat, lambda turns: _render(tokenizer, turns, ask))


def checked_text(chat: Sequence[Turn], render: Render) -> str:
    """The text of a chat. A template that reads content in parts alone, and so writes no text, is given parts.

    Raises what the template raises, and a ValueError for what it would drop: a turn's words or `tool_calls`, the row's
    `tools` or `documents`; and for a turn without content that it writes as "None".
    """
    chat, text = _written(chat, render)
    if name := _left_out(chat, text, render):
        raise ValueError(
            f"the chat template leaves out the row's {name}: take a model whose template knows them, or rename or drop "
            "that column"
        )
    for number, turn in enumerate(chat):
        if turn.get("content") is None and _writes_none(chat, number, text, render):
            raise ValueError(
                f"turn {number} ({turn['role']}) has no content, and the chat template writes it as the word 'None'"
            )
        for name, others in _other_calls(turn):
            if text == _text_or_none(render, _replaced(chat, number, {name: others})):
                raise ValueError(f"the chat template leaves out the {name} of turn {number} ({turn['role']})")
    return text


def _written(chat: Sequence[Turn], render: Render) -> tuple[Sequence[Turn], str]:
    """The chat as the template reads it, its content as texts or in parts, and its text."""
    try:
        text = render(chat)
        if (lost := _unwritten(chat, text, render)) is None:
            return chat, text
        raise ValueError(f"the chat template leaves out turn {lost} ({chat[lost]['role']})")
    except Exception:  # a template may raise anything
        parts = _in_parts(chat)
        again = _text_or_none(render, parts)
        if again is None or _unwritten(parts, again, render) is not None:
            raise
        return parts, again


def _left_out(chat: Sequence[Turn], text: str, render: Render) -> str | None:
    """The first of the chat's template values, such as its tools, that its `text` has nothing of; None without one."""
    values = (name for name, value in template_values(chat).items() if value)
    return next((name for name in values if _text_or_none(render, _with_other(chat, name)) == text), None)


def _with_other(chat: Sequence[Turn], name: str) -> Chat:
    values = template_values(chat)
    return ToolChat(chat, {**values, name: _other(values[name])})


def _other(value: object) -> Any:
    """Another value of the same shape: whatever a template writes of it, it writes otherwise."""
    if isinstance(value, dict):
        return {f"{key}0": _other(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_other(one) for one in value]
    return f"{value}0"


def _other_calls(turn: Turn) -> Iterator[tuple[str, Any]]:
    """For each call of a turn the name of its key, and a value of that key in which this call is another one."""
    for name in _CALLS:
        calls: Any = turn.get(name) or []
        if not isinstance(calls, list):
            yield name, _other(calls)
            continue
        for place, call in enumerate(calls):
            yield name, [*calls[:place], _other(call), *calls[place + 1 :]]


def _unwritten(chat: Sequence[Turn], text: str, render: Render) -> int | None:
    """The first turn whose words the template does not write, whatever they are; None without one.

    Beside `tool_calls` many templates write no words (Llama 3.1), and take such turns to have none.
    """
    for number, turn in enumerate(chat):
        words = _words(turn)
        if words and words not in text and not turn.get("tool_calls"):
            other = [{"type": "text", "text": "0"}] if isinstance(turn["content"], list) else "0"
            if text == _text_or_none(render, _replaced(chat, number, {"content": other})):
                return number
    return None


def _words(turn: Turn) -> str:
    content = turn.get("content") or ""
    parts = [content] if isinstance(content, str) else [part.get("text") for part in content]
    return next((part.strip() for part in parts if isinstance(part, str)), "")


def _in_parts(chat: Sequence[Turn]) -> Chat:
    """The chat with each text as a list of one part, as the templates of models with images read it."""
    parts = [
        {**turn, "content": [{"type": "text", "text": words}]}
        if isinstance(words := turn.get("content"), str) and words
        else turn
        for turn in chat
    ]
    return turns_like(chat, parts)


def _text_or_none(render: Render, chat: Sequence[Turn]) -> str | None:
    """The text of a changed chat; None if the template refuses it, and so reads what was changed."""
    try:
        return render(chat)
    except Exception:  # a template may raise anything
        return None


def template_turns(chat: Sequence[Turn]) -> list[Turn]:
    """The turns as a template gets them: without keys that are null, and with reasoning under the names that it reads.

    As `apply_chat_template` of transformers 5.23 has it; earlier versions give null, and one name only.
    """
    return [_with_reasoning({key: value for key, value in turn.items() if value is not None}) for turn in chat]


def _with_reasoning(turn: Turn) -> Turn:
    found = next((turn[name] for name in _REASONING if name in turn), None)
    return turn if found is None else {"thinking": found, **turn, "reasoning_content": found}


def _render(tokenizer: Any, chat: Sequence[Turn], ask: bool) -> str:
    turns, values = template_turns(chat), template_values(chat)
    return str(tokenizer.apply_chat_template(turns, add_generation_prompt=ask, tokenize=False, **values))


def _writes_none(chat: Sequence[Turn], number: int, text: str, render: Render) -> bool:
    """Whether a turn without content is written as if it had the content "None"."""
    none, empty = (_text_or_none(render, _replaced(chat, number, {"content": words})) for words in ("None", ""))
    return text == none != empty


def _replaced(chat: Sequence[Turn], number: int, values: dict[str, object]) -> list[Turn]:
    return turns_like(chat, [*chat[:number], {**chat[number], **values}, *chat[number + 1 :]])
