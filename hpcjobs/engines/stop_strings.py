"""Stop strings: a row ends when its new text contains one, and the text is cut before it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The byte pieces of SentencePiece that continue a character of several bytes.
_CONTINUES = re.compile("<0x[89AB][0-9A-F]>")


class StopStrings:
    """Detects stop strings in the decoded end of a row's new text.

    Texts are compared, not tokens: a stop string may begin inside one token and end inside another. What counts is the
    text of all new tokens; its end is looked at first, because it is short.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> None:
        self._tokenizer, self._stops, self._plain = tokenizer, stops, not _names_special(tokenizer, stops)
        cleans = bool(getattr(tokenizer, "clean_up_tokenization_spaces", False))
        # A token has at least one byte, so this many tokens cover the longest stop string and the rest of one token;
        # cleaning up may make one character of three tokens (" ' ").
        self._window = max((len(stop.encode()) for stop in stops), default=0) * (3 if cleans else 1) + 1
        self._dropped = dict.fromkeys(tokenizer.all_special_ids, True) if self._plain else {}
        self._last = {stop[-1] for stop in stops}
        # A token alone may be decoded without its spaces, and cleaning up removes some before the next token.
        self._any_may = cleans or any(last.isspace() for last in self._last)
        self._may_end: dict[int, bool] = {}
        self._within: dict[int, bool] = {}

    def met(self, made: Sequence[int]) -> bool:
        """Whether the last of these new tokens completes a stop string; earlier ones must have been checked before."""
        if not self._stops or not self._ends_one(made[-1]):
            return False
        end = self._end(made)
        return self._found(end) and (len(end) == len(made) or self._found(made))

    def _found(self, tokens: Sequence[int]) -> bool:
        text = self._tokenizer.decode(tokens, skip_special_tokens=self._plain)
        return any(stop in text for stop in self._stops)

    def _end(self, made: Sequence[int]) -> list[int]:
        """The last tokens with text, enough for any stop string; not from within a character."""
        end: list[int] = []
        for token in reversed(made):
            if not self._drops(token):
                end.append(token)
                if len(end) >= self._window and not self._continues(token):
                    break
        return end[::-1]

    def _drops(self, token: int) -> bool:
        """Whether the text leaves a token out: a special one, or one that only the tokenizer's own library has as such.
        """
        if self._plain and token not in self._dropped:
            self._dropped[token] = bool(
                self._tokenizer.decode([token], skip_special_tokens=False)
                and not self._tokenizer.decode([token], skip_special_tokens=True)
            )
        return self._dropped.get(token, False)

    def _continues(self, token: int) -> bool:
        """Whether a token is a byte piece after the first of a character: no run that begins with one is a text."""
        if token not in self._within:
            piece = self._tokenizer.convert_ids_to_tokens(token)
            self._within[token] = _CONTINUES.fullmatch(str(piece)) is not None
        return self._within[token]

    def _ends_one(self, token: int) -> bool:
        """Whether a stop string can end in this token: it has the last character of one, or part of a character."""
        if self._any_may:
            return True
        if token not in self._may_end:
            text = self._tokenizer.decode([token], skip_special_tokens=self._plain)
            self._may_end[token] = "\ufffd" in text or not self._last.isdisjoint(text)
        return self._may_end[token]


def stopped_text(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], stops: Sequence[str]) -> tuple[str, bool]:
    """The text of new tokens before the first stop string, and whether there was one.

    A stop string with a special token is searched in the text with special tokens, as `generate` and
    lm-evaluation-harness do; the answer itself has none.
    """
    if _names_special(tokenizer, stops):
        kept, stopped = cut_at_stop(tokenizer.decode(tokens, skip_special_tokens=False), stops)
        if stopped:
            return _without_special(tokenizer, tokens, kept), True
    return cut_at_stop(tokenizer.decode(tokens, skip_special_tokens=True), stops)


def _without_special(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], kept: str) -> str:
    """`kept`, the beginning of the text of these tokens with special ones, without them."""
    count, before = len(tokens), kept + " "
    while not kept.startswith(before):
        count -= 1
        before = tokenizer.decode(tokens[:count], skip_special_tokens=False)
    # What is kept of the token at the border, unless it is a space before a special one.
    rest = "" if tokens[count] in tokenizer.all_special_ids else kept[len(before) :]
    return str(tokenizer.decode(tokens[:count], skip_special_tokens=True)) + rest


def cut_at_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop string, and whether there was one."""
    places = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    return (text[: min(places)], True) if places else (text, False)


def _names_special(tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> bool:
    """Whether a stop string contains the text of a special token."""
    return bool(stops) and any(special in stop for special in tokenizer.all_special_tokens for stop in stops)
