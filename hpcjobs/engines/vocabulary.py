"""Which tokens a model has embeddings for; a tokenizer to which tokens were added may have more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def embedded_tokens(config: PreTrainedConfig | Mapping[str, object]) -> int | None:
    """The `vocab_size` of a config, or of what a config.json holds: that of its text model. None if it has none."""
    text = _value(config, "text_config") or config
    found = _value(text, "vocab_size")
    return found if isinstance(found, int) and found > 0 else None


def embedding_rows(model: PreTrainedModel) -> int | None:
    """The tokens that a loaded model has embeddings for; None where it does not tell."""
    try:
        return int(model.get_input_embeddings().weight.shape[0])
    except (AttributeError, NotImplementedError):
        return embedded_tokens(model.config)


def check_tokens(ids: Sequence[int], known: int | None, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise a ValueError for a token that the model does not know: on a GPU it would end the process."""
    if known is not None and ids and (token := max(ids)) >= known:
        text = tokenizer.convert_ids_to_tokens(token)
        raise ValueError(f"the model has no embedding for the token {text!r} ({token}): it has {known}")


def _value(config: object, name: str) -> object:
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
