"""Examples to token ids, with a mask of the tokens that are trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpcjobs.engines.chat_template import chat_text
from hpcjobs.engines.encoding import prompt_ids, text_ids
from hpcjobs.engines.end_tokens import added_tokens
from hpcjobs.engines.vocabulary import check_tokens
from hpcjobs.requests import Turn
from hpcjobs.training.data.examples import Example, turns_of
from hpcjobs.training.data.pieces import chat_pieces

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Tokens:
    """A sample: its token ids, and for each whether it is trained on. The first never is: nothing predicts it.

    `cut` tokens at its end were left out. `apart`: a token reaches over the border of an earlier answer, which later
    prompts hold in other tokens than those that answered. No sample is right for both; it has the latter.
    """

    ids: list[int]
    learned: list[bool]
    cut: int = 0
    apart: bool = False


# Texts put before a piece that is tokenised by itself: the first that no token of the piece reaches into.
_LEADS = ("\n", "!", "a", "0")


class Encoder:
    """Tokenises examples with the model's tokenizer and chat template, truncated to `max_length` tokens.

    A prompt has the same tokens as at inference (`engines.encoding.prompt_ids`), and the answer those that the
    tokenizer gives it after that prompt. `known` is the number of tokens that the model has embeddings for.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, known: int | None = None) -> None:
        self._tokenizer, self._most, self._known = tokenizer, max_length, known

    def encode(self, example: Example) -> Tokens:
        """The tokens of an example. Raises a ValueError if none of them would be trained on."""
        tokens = self._text(example) if isinstance(example.completion, str) else self._chat(example)
        ids, learned = tokens.ids[: self._most], [False, *tokens.learned[1 : self._most]]
        check_tokens(ids, self._known, self._tokenizer)
        if not any(learned):
            cut = f" within the first {self._most} of its {len(tokens.ids)} tokens (train.max_length)"
            raise ValueError(f"nothing is learned from it{cut if len(tokens.ids) > self._most else ''}")
        return Tokens(ids, learned, cut=len(tokens.ids) - len(ids), apart=tokens.apart)

    def _text(self, example: Example) -> Tokens:
        """A text with the tokenizer's special tokens; the completion ends with the end token."""
        end, context, completion = self._tokenizer.eos_token_id, str(example.context), str(example.completion)
        head = prompt_ids(self._tokenizer, context) if context else []
        tail = self._bare(completion, context) if context else text_ids(self._tokenizer, completion)
        if end is not None and tail[-1:] != [end]:
            tail = [*tail, end]
        return Tokens([*head, *tail], [False] * len(head) + [True] * len(tail))

    def _chat(self, example: Example) -> Tokens:
        chat = turns_of(example)
        whole = self._render(chat, False)
        ids: list[int] = []
        learned: list[bool] = []
        apart = False
        for piece in chat_pieces(chat, len(example.context), self._render):
            if piece.learned:
                apart = ids != self._plain(whole[: piece.begin])
            part = self._bare(whole[piece.begin : piece.end], whole[: piece.begin], ids)
            ids += part
            learned += [piece.learned] * len(part)
        return Tokens(ids, learned, apart=apart)

    def _bare(self, text: str, before: str, head: Sequence[int] | None = None) -> list[int]:
        """Ids of a text after `before`, whose ids are `head` (None: its ids alone), without special tokens.

        They are those of the whole text if it begins with `head`, or if a token begins at the border. If a token spans
        the border, they are those of the text alone, without the leading space that some tokenizers add.
        """
        head = self._plain(before) if head is None else head
        whole = self._plain(before + text)
        if whole[: len(head)] == list(head) and len(whole) > len(head):
            return whole[len(head) :]
        if (behind := self._behind(before, text)) is not None:
            return behind
        for lead in _LEADS:
            first, both = self._plain(lead), self._plain(lead + text)
            if both[: len(first)] == first:
                return both[len(first) :]
        return self._plain(text)

    def _behind(self, before: str, text: str) -> list[int] | None:
        """Ids of `text` within the whole text; None if a token spans the border, or there are no offsets."""
        if not self._tokenizer.is_fast:
            return None
        made = self._tokenizer(before + text, add_special_tokens=False, return_offsets_mapping=True)
        ends = [end for _, end in made.offset_mapping]
        first = next((number for number, end in enumerate(ends) if end > len(before)), len(ends))
        whole = first == len(ends) or made.offset_mapping[first][0] >= len(before)
        return list(made.input_ids[first:]) if whole else None

    def _plain(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    def _render(self, chat: Sequence[Turn], asks: bool) -> str:
        return chat_text(self._tokenizer, chat, asks)


def learned_end(
    samples: Iterable[tuple[Sequence[int], Sequence[bool]]], tokenizer: PreTrainedTokenizerBase
) -> int | None:
    """The token with which most samples (ids, learned) end their last trained turn; None if they end with text.

    Only added tokens (special tokens and others) end a turn.
    """
    added = set(added_tokens(tokenizer).values())
    ends = Counter(_last_added(ids, learned, added) for ids, learned in samples)
    return ends.most_common(1)[0][0] if ends else None


def _last_added(ids: Sequence[int], learned: Sequence[bool], added: set[int]) -> int | None:
    """The last added token that is trained on, if only whitespace of the template follows it."""
    last = [int(token) for token, learn in zip(ids, learned, strict=True) if learn][-4:]
    return next((token for token in reversed(last) if token in added), None)
