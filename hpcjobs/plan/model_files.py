"""Whether the JSON files of a model's folder can be read, and go together: told when planning, with the file's name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hpcjobs.engines.vocabulary import embedded_tokens
from hpcjobs.errors import ConfigError

_SHOWN = 5


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_ids(value: object) -> bool:
    return _is_id(value) or (isinstance(value, list) and all(map(_is_id, value)))


def _are_texts(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


# What transformers cannot use is an error of the rank, hours later.
_GENERATION: dict[str, tuple[Callable[[object], bool], str]] = {
    "eos_token_id": (_are_ids, "a token id or a list of them"), "bos_token_id": (_is_id, "a token id"),
    "pad_token_id": (_is_id, "a token id"), "stop_strings": (_are_texts, "a text or a list of them"),
    "repetition_penalty": (_is_positive, "a number above 0"), "guidance_scale": (_is_number, "a number"),
    "encoder_repetition_penalty": (_is_positive, "a number above 0"),
    "no_repeat_ngram_size": (_is_id, "an integer"), "min_length": (_is_id, "an integer"),
    "min_new_tokens": (_is_id, "an integer"), "forced_bos_token_id": (_is_id, "a token id"),
    "forced_eos_token_id": (_are_ids, "a token id or a list of them"),
    "suppress_tokens": (_are_ids, "a list of token ids"), "begin_suppress_tokens": (_are_ids, "a list of token ids"),
}  # fmt: skip


def check_model_files(folder: Path) -> None:
    """Raise a ConfigError that names the first file of the folder that is no JSON object, or has a value of a wrong
    kind.
    """
    for name in ("config.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json"):
        _read(folder / name)
    file = folder / "generation_config.json"
    for key, value in _read(file).items():
        fits, wanted = _GENERATION.get(key, (None, ""))
        if fits and value is not None and not fits(value):
            raise ConfigError(f"{file}: {key} is {json.dumps(value)[:80]}, and not {wanted}")


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is no JSON: {error}; get the model's file again") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{file} is no JSON object: get the model's file again")
    return values


def vocabulary_notes(folder: Path | None) -> list[str]:
    """A note on the tokens that the tokenizer has and the model does not, where its folder is here."""
    file = folder / "tokenizer.json" if folder else None
    if folder is None or file is None or not file.is_file() or not (folder / "config.json").is_file():
        return []
    known = embedded_tokens(_read(folder / "config.json"))
    beyond = {} if known is None else {text: at for text, at in _vocabulary(_read(file)).items() if at >= known}
    if not beyond:
        return []
    shown = sorted(beyond, key=lambda text: beyond[text])[:_SHOWN]
    names = ", ".join(map(repr, shown)) + (", ..." if len(beyond) > _SHOWN else "")
    what = f"{len(beyond)} tokens of the tokenizer are beyond the model's {known} embeddings ({names})"
    return [f"{what}: a sample with one of them ends in an error, or is not learned"]


def _vocabulary(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """The tokens of a tokenizer.json, by text."""
    vocabulary = (tokenizer.get("model") or {}).get("vocab") or {}
    if isinstance(vocabulary, list):  # of Unigram: (text, score) in order
        found = {str(entry[0]): number for number, entry in enumerate(vocabulary)}
    else:
        found = dict(vocabulary)
    return found | {str(token["content"]): int(token["id"]) for token in tokenizer.get("added_tokens") or ()}
