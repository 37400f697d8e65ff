"""Stop strings: a row ends when its new text contains one, and the text is cut before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class StopStrings:
    """Detects stop strings in the decoded end of a row's new text.

    Texts are compared, not tokens: a stop string may begin inside one token and end inside another.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> None:
        self._tokenizer, self._stops, self._plain = tokenizer, stops, not _names_special(tokenizer, stops)
        # A token has at least one byte, so this many tokens cover the longest stop string and the rest of one token.
        self._window = max((len(stop.encode()) for stop in stops), default=0) + 1
        self._last = {stop[-1] for stop in stops}
        self._spaces = any(last.isspace() for last in self._last)
        self._may_end: dict[int, bool] = {}

    def met(self, made: Sequence[int]) -> bool:
        """Whether the last of these new tokens completes a stop string; earlier tokens must have been checked before.
        """
        if not self._stops or not self._ends_one(made[-1]):
            return False
        text = self._tokenizer.decode(made[-self._window :], skip_special_tokens=self._plain)
        return any(stop in text for stop in self._stops)

    def _ends_one(self, token: int) -> bool:
        """Whether a stop string can end in this token: it has the last character of one, or part of a character."""
        if self._spaces:  # a token alone may be decoded without its spaces
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
    if not _names_special(tokenizer, stops):
        return cut_at_stop(tokenizer.decode(tokens, skip_special_tokens=True), stops)
    text, stopped = cut_at_stop(tokenizer.decode(tokens, skip_special_tokens=False), stops)
    for special in tokenizer.all_special_tokens:
        text = text.replace(special, "")
    return text, stopped


def cut_at_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop string, and whether there was one."""
    places = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    return (text[: min(places)], True) if places else (text, False)


def _names_special(tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> bool:
    """Whether a stop string contains the text of a special token."""
    return bool(stops) and any(special in stop for special in tokenizer.all_special_tokens for stop in stops)
