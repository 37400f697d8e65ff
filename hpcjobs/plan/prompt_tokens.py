"""The texts and tokens of prompts as the ranks make them, when planning: without torch or transformers."""

from __future__ import annotations

import functools
from pathlib import Path

from hpcjobs.engines.chat_template import checked_text
from hpcjobs.plan.chat_template import chat_renderer, special_tokens
from hpcjobs.requests import Prompt


class PromptTokens:
    """Renders and counts prompts by the chat template and the tokenizer.json of the model in `folder`."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._render = chat_renderer(folder)
        self._first = special_tokens(folder).get("bos_token")

    def text(self, prompt: Prompt) -> tuple[str, bool]:
        """The text of a prompt, and whether the tokenizer adds special tokens to it. Raises what a template raises."""
        text, special = (prompt, True) if isinstance(prompt, str) else (checked_text(prompt, self._render), False)
        return text, special and not (self._first and text.startswith(self._first))

    def count(self, text: str, special: bool) -> int:
        """How many tokens a text has."""
        # One text at a time: after use of the tokenizer's own threads it warns of each process that is started.
        return len(self._tokenizer.encode(text, add_special_tokens=special))

    def name(self, token: int) -> str:
        """A token as the tokenizer writes it."""
        return self._tokenizer.id_to_token(token) or f"token {token}"

    def number(self, text: str) -> int | None:
        """The token of that name; None if there is none."""
        found: int | None = self._tokenizer.token_to_id(text)
        return found


@functools.lru_cache(maxsize=1)
def prompt_tokens(folder: Path) -> PromptTokens:
    """The tokens of a model with a tokenizer.json, read once."""
    return PromptTokens(folder)
