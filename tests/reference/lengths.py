"""Tiny models with random weights, texts of so many tokens, and what transformers and lm_eval make of them.

HPCJOBS_LENGTHS=whole takes the lengths of the whole form, which needs minutes.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpcjobs.requests import Completion, Pair, Request
from tests.toy_tokenizers import toy_tokenizer

WHOLE = os.environ.get("HPCJOBS_LENGTHS") == "whole"
# Each is a token of its own in `byte_bpe` tokenizers: no two of them stand together in what those learned from.
_LETTERS = "7XQ|~^#@Z=;"
_SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "vocab_size": 512}
_ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}


def save_model(folder: Path, kind: str, positions: int, tokenizer: str = "byte_bpe_bos") -> Path:
    """A model folder: `kind` is a model type of transformers."""
    import torch
    import transformers

    torch.manual_seed(0)
    if kind == "gpt2":
        shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 512, "n_positions": positions}
    elif kind == "mamba":
        shape = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 512, "state_size": 4}
    else:
        shape = {**_SHAPE, **_HEADS, "max_position_embeddings": positions}
        shape |= {"sliding_window": 100} if kind == "mistral" else {}
    config = transformers.AutoConfig.for_model(kind, **shape, **_ENDS)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)  # else all tokens are nearly as likely, and no mistake shows
    model.save_pretrained(folder)
    toy_tokenizer(tokenizer).save_pretrained(folder)
    return folder


def loaded(folder: Path) -> tuple[Any, Any]:
    """Model and tokenizer as a rank loads them."""
    from hpcjobs.engines.loader import load_model

    return load_model(str(folder))


def harness(folder: Path) -> Any:
    """lm_eval's model over the same folder, one request at a time."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=1)


def theirs(harness: Any, kind: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """What lm_eval's model answers to requests of a kind."""
    from lm_eval.api.instance import Instance

    requests = [Instance(kind, {}, one, n) for n, one in enumerate(arguments)]
    found: list[Any] = getattr(harness, kind)(requests, disable_tqdm=True)
    return found


def text_of(tokens: int, seed: int = 0) -> str:
    """A text of so many tokens, without special tokens, for tokenizers named byte_bpe."""
    draw, last, letters = random.Random(seed * 100_003 + tokens), "", list[str]()
    for _ in range(tokens):
        last = draw.choice([letter for letter in _LETTERS if letter != last])
        letters.append(last)
    return "".join(letters)


def rolling(index: int, text: str) -> Request:
    """The request for the log-likelihood of a text."""
    return Request(index=index, id=str(index), prompt=text, task="perplexity")


def choice(index: int, context: str, options: Sequence[str]) -> Request:
    """The request for options of one context."""
    pairs = tuple(Pair(context, option) for option in options)
    return Request(index=index, id=str(index), prompt=context, task="choice", options=tuple(options), pairs=pairs)


def run(engine: Any, requests: Sequence[Request | None]) -> list[Completion]:
    """The completions in order."""
    return sorted(engine.stream(iter(requests)), key=lambda completion: completion.index)


def logprobs(completions: Sequence[Completion]) -> list[float]:
    """All log-likelihoods. Fails at an error."""
    assert [completion.error for completion in completions] == [None] * len(completions)
    return [one for completion in completions if completion.likelihood for one in completion.likelihood.logprobs]


def by_hand(model: Any, context: Sequence[int], continuation: Sequence[int]) -> float:
    """The log-likelihood of a continuation by one forward pass in float32."""
    import torch

    ids = torch.tensor([[*context, *continuation]])
    with torch.inference_mode():
        table = model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
    places = range(len(context) - 1, ids.shape[1] - 1)
    return sum(float(table[place, token]) for place, token in zip(places, continuation, strict=True))
