"""Greedy answers to prompts at, below and above every limit of the engines that generate, against `generate` alone."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.config import GenerationConfig
from hpcjobs.engines import continuous
from hpcjobs.engines.loop import engine as loop_engine
from hpcjobs.engines.loop import kvcache, packed
from hpcjobs.requests import Completion, Request
from tests.reference.lengths import WHOLE, loaded, run, save_model, text_of

pytestmark = pytest.mark.model
NEW = 6
ENGINES = ["loop", "generate", "transformers"]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Makes a model folder once."""

    @functools.cache
    def make(kind: str = "llama", tokenizer: str = "byte_bpe_bos") -> Path:
        return save_model(tmp_path_factory.mktemp("model"), kind, 32_768, tokenizer)

    return make


def answers(folder: Path, engine: str, texts: list[str], batch: int) -> list[Completion]:
    from hpcjobs.engines.pick import EngineSpec, make_engine

    made = make_engine(
        *loaded(folder), GenerationConfig(max_new_tokens=NEW), EngineSpec(engine=engine, batch_size=batch)
    )
    return run(made, [Request(index=n, id=str(n), prompt=text) for n, text in enumerate(texts)])


@functools.cache
def alone(folder: Path, text: str) -> tuple[str, int, int]:
    """The text that `generate` makes of one prompt, and the numbers of prompt and new tokens."""
    import torch

    model, tokenizer = loaded(folder)
    ids = torch.tensor([tokenizer(text).input_ids])
    made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False)[
        0, ids.shape[1] :
    ]
    return tokenizer.decode(made, skip_special_tokens=True), ids.shape[1], len(made)


def same(folder: Path, done: list[Completion], texts: list[str]) -> None:
    assert [one.error for one in done] == [None] * len(texts)
    found = [(one.text, one.prompt_tokens, one.completion_tokens) for one in done]
    assert found == [alone(folder, text) for text in texts]


def around(*limits: int) -> list[str]:
    """Texts whose tokens, the first token included, or all but the last new one, are just below, at and above."""
    lengths = {limit + more for limit in limits for more in (-NEW, 1 - NEW, 2 - NEW, -1, 0, 1)}
    return [text_of(length - 1) for length in sorted(lengths) if length > 0]


@pytest.mark.parametrize("batch", [1, 3] if WHOLE else [3])
@pytest.mark.parametrize("engine", ENGINES)
def test_prompts_around_small_limits(folder_of: Any, engine: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces, passes and cache steps of a few tokens, so that a prompt meets each of them many times."""
    monkeypatch.setattr(loop_engine, "_PIECE_TOKENS", 8)
    monkeypatch.setattr(loop_engine, "_PASS_TOKENS", {"cpu": 20})
    monkeypatch.setattr(kvcache, "_COLUMNS", 4)
    monkeypatch.setattr(packed, "_CALL_COLUMNS", 5)
    monkeypatch.setattr(continuous, "_PAGE_TOKENS", 16)
    texts = around(*((1, 8, 16, 20, 24, 40, 64, 160) if WHOLE else (1, 8, 16, 20)))
    same(folder_of(), answers(folder_of(), engine, texts, batch), texts)


@pytest.mark.parametrize("kind", ["llama", "gpt2"] if WHOLE else ["llama"])
@pytest.mark.parametrize("engine", ENGINES)
def test_prompts_around_the_limits_as_they_are(folder_of: Any, kind: str, engine: str) -> None:
    """A page of 256 tokens, a piece of 512, a pass of 1024, pages for a prompt of 1024 and its answer."""
    texts = around(*((64, 96, 256, 512, 1024, 1280, 1536) if WHOLE else (512, 1024)))
    texts += [text_of(length) for length in ((2047, 4096, 8191, 20_000) if WHOLE else (1300,))]
    same(folder_of(kind), answers(folder_of(kind), engine, texts, 3), texts)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_prompt_that_is_longer_than_expected(folder_of: Any, engine: str) -> None:
    """One row at once, and memory planned for a prompt of 1024 tokens: all pages there are hold fewer tokens."""
    texts = ["7", text_of(1300), text_of(3000), "X7"]
    same(folder_of(), answers(folder_of(), engine, texts, 1), texts)


@pytest.mark.parametrize("engine", ENGINES)
def test_prompts_of_one_token_and_of_none(folder_of: Any, engine: str) -> None:
    with_first = answers(folder_of(), engine, ["", "7"], 2)
    same(folder_of(), with_first, ["", "7"])
    assert [one.prompt_tokens for one in with_first] == [1, 2]
    bare = folder_of("llama", "byte_bpe")
    one, none, another = answers(bare, engine, ["7", "", "X"], 2)
    same(bare, [one, another], ["7", "X"])
    assert [one.prompt_tokens, another.prompt_tokens] == [1, 1]
    assert none.error
    assert none.error.message == "prompt has no tokens"
