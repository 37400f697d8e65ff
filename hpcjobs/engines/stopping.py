"""Stop strings: a row ends when its new text contains one, and the text is cut before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


class StopStrings:
    """A stopping criterion by row over the decoded end of the new text.

    Decoding is compared, not tokens: a stop string may begin in the middle of a token and end in another.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str], prompt_length: int) -> None:
        self._tokenizer, self._stops, self._prompt_length = tokenizer, stops, prompt_length
        # A token holds at least one byte: so many tokens cover the longest stop string and one token's rest.
        self._window = max(len(stop.encode()) for stop in stops) + 1

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """`input_ids` [rows, tokens]; True for each row that has met a stop string."""
        start = max(self._prompt_length, input_ids.shape[1] - self._window)
        texts = self._tokenizer.batch_decode(input_ids[:, start:], skip_special_tokens=True)
        met = [any(stop in text for stop in self._stops) for text in texts]
        return torch.tensor(met, device=input_ids.device)


def cut_at_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop string in it, and whether there was one."""
    places = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    return (text[: min(places)], True) if places else (text, False)
