"""Where the text of a chat is learned: from a template alone, without tokens, so that planning can tell too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hpcjobs.requests import Chat, Turn, turns_like

# The text of a chat, and if asked for what the template writes before an answer.
Rendered = Callable[[Sequence[Turn], bool], str]


@dataclass(frozen=True)
class Piece:
    """The characters `begin`..`end` of a rendered chat."""

    begin: int
    end: int
    learned: bool


def chat_pieces(chat: Chat, context: int, render: Rendered) -> Iterator[Piece]:
    """The chat as the template renders it, split where an assistant's turn after the `context` begins and ends.

    Raises what the template raises, and a ValueError where a turn's text cannot be told from the others'.
    """
    whole, place = render(chat, False), 0
    for number in range(context, len(chat)):
        if chat[number]["role"] != "assistant":
            continue
        begin, end = _turn(chat, number, whole, render)
        if begin > place:
            yield Piece(place, begin, False)
        yield Piece(begin, end, True)
        place = end
    if place < len(whole):
        yield Piece(place, len(whole), False)


def _turn(chat: Chat, number: int, whole: str, render: Rendered) -> tuple[int, int]:
    """The range in `whole` of an assistant's turn, after the template's generation prompt."""
    through = render(chat[: number + 1], False)
    before = render(chat[:number], True) if number else _opening(chat, through, render)
    end = _alike(through, whole)  # a template may end the last turn in another way
    if not whole.startswith(before) or not through.startswith(before) or end <= len(before):
        then = "when more turns follow it" if through.startswith(before) else "than it asks for one"
        raise ValueError(f"the chat template writes turn {number} in another way {then}")
    return len(before), end


def _opening(chat: Chat, through: str, render: Rendered) -> str:
    """What the template writes before a first turn of the assistant: its own system message."""
    user = turns_like(chat, [{"role": "user", "content": str(chat[0].get("content") or "")}])
    asking = render(user, True).removeprefix(render(user, False))
    place = through.find(asking) if asking else -1
    if place < 0:
        raise ValueError("the chat begins with the assistant's turn, and where its text begins cannot be told")
    return through[: place + len(asking)]


def _alike(one: str, other: str) -> int:
    """The length of the common prefix of two texts."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
