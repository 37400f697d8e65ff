"""The tokens that end an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The end tokens: all of those in generation config, config and tokenizer.

    Models name them in different places (a chat's end of turn is often only in the tokenizer), and
    lm-evaluation-harness stops at the tokenizer's as well.
    """
    named = (model.generation_config.eos_token_id, model.config.get_text_config().eos_token_id, tokenizer.eos_token_id)
    lists = [one if isinstance(one, list | tuple) else [one] for one in named]
    return {int(token) for tokens in lists for token in tokens if token is not None}


def added_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The added tokens of a tokenizer by text, including special tokens."""
    return {str(token): number for number, token in tokenizer.added_tokens_decoder.items()}
