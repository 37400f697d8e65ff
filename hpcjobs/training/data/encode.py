"""Examples to token ids, and which of the tokens are learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hpcjobs.requests import Chat
from hpcjobs.training.data.examples import Example


@dataclass(frozen=True)
class Tokens:
    """A sample: its token ids, and for each whether it is learned. The first never is: nothing predicts it."""

    ids: list[int]
    learned: list[bool]


@dataclass(frozen=True)
class _Piece:
    text: str
    learned: bool


class Encoder:
    """Tokenises examples with a model's own tokenizer and chat template, and cuts them at `max_length`."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self._tokenizer, self._most = tokenizer, max_length
        first = tokenizer("a", add_special_tokens=False).input_ids
        # SentencePiece's tokenizers put a space of their own in front of every text.
        self._prefixed = bool(first) and str(tokenizer.convert_ids_to_tokens(first)[0]).startswith("▁")

    def encode(self, example: Example) -> Tokens:
        """The tokens of an example; a ValueError where none of them would be learned.

        Each piece is tokenised by itself, since a prompt is so when the model answers it: no token reaches over the
        border.
        """
        tokens = self._text(example) if isinstance(example.completion, str) else self._chat(example)
        ids, learned = tokens.ids[: self._most], [False, *tokens.learned[1 : self._most]]
        if not any(learned):
            cut = f" within the first {self._most} of its {len(tokens.ids)} tokens (train.max_length)"
            raise ValueError(f"nothing is learned from it{cut if len(tokens.ids) > self._most else ''}")
        return Tokens(ids, learned)

    def _text(self, example: Example) -> Tokens:
        """A text with the special tokens that the tokenizer puts around a prompt; its completion ends with its end."""
        end = self._tokenizer.eos_token_id
        head = list(self._tokenizer(example.context).input_ids)
        if len(head) > 1 and head[-1] == end:  # a tokenizer that ends what it is given
            head.pop()
        whole = self._ids(_Piece(str(example.completion), True), first=False)
        tail = whole if end is None else [*whole, end]
        return Tokens([*head, *tail], [False] * len(head) + [True] * len(tail))

    def _chat(self, example: Example) -> Tokens:
        pieces = list(self._pieces(list(example.context), list(example.completion)))  # type: ignore[arg-type]
        ids: list[int] = []
        learned: list[bool] = []
        for number, piece in enumerate(pieces):
            part = self._ids(piece, first=number == 0)
            ids += part
            learned += [piece.learned] * len(part)
        return Tokens(ids, learned)

    def _pieces(self, context: Chat, completion: Chat) -> Iterator[_Piece]:
        """The chat as the template writes it, cut where an assistant's turn of the completion begins and ends."""
        chat, place = [*context, *completion], 0
        whole = self._render(chat, False)
        for number in range(len(context), len(chat)):
            if chat[number]["role"] != "assistant":
                continue
            begin, end = self._turn(chat, number, whole)
            yield from (_Piece(text, False) for text in [whole[place:begin]] if text)
            yield _Piece(whole[begin:end], True)
            place = end
        yield from (_Piece(text, False) for text in [whole[place:]] if text)

    def _turn(self, chat: Chat, number: int, whole: str) -> tuple[int, int]:
        """Where in `whole` an assistant's turn stands: behind what the template writes when it asks for an answer."""
        before = self._render(chat[:number], True) if number else ""
        through = self._render(chat[: number + 1], False)
        end = _alike(through, whole)  # a template may end the last turn in another way
        if not whole.startswith(before) or not through.startswith(before) or end <= len(before):
            raise ValueError(f"the chat template writes turn {number} in another way when more turns follow it")
        return len(before), end

    def _render(self, chat: Sequence[dict[str, str]], asks: bool) -> str:
        return str(self._tokenizer.apply_chat_template(list(chat), add_generation_prompt=asks, tokenize=False))

    def _ids(self, piece: _Piece, first: bool) -> list[int]:
        """The ids of a piece without special tokens, and without the space that some tokenizers put before a text."""
        ids = list(self._tokenizer(piece.text, add_special_tokens=False).input_ids)
        if first or not self._prefixed:
            return ids
        lead = list(self._tokenizer("\n", add_special_tokens=False).input_ids)
        whole = list(self._tokenizer("\n" + piece.text, add_special_tokens=False).input_ids)
        return whole[len(lead) :] if whole[: len(lead)] == lead else ids


def _alike(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
