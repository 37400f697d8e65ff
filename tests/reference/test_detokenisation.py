"""The text of an answer is `tokenizer.decode` of all its tokens, and ends where that text first has a stop string.

Over tokenizers of every kind, with random tokens: pieces of a character, dummy prefixes, special tokens in the middle.
HPCJOBS_SEQUENCES is their number for each tokenizer, 25 in CI.
"""

from __future__ import annotations

import copy
import os
import random
from types import SimpleNamespace
from typing import Any

import pytest

from hpcjobs.engines.encoding import TextCodec
from hpcjobs.engines.stop_strings import StopStrings
from hpcjobs.requests import GenerationConfig, Request
from tests.engines.test_generate import by_index, engine_of
from tests.toy_tokenizers import SPECIAL, TOKENIZERS, toy_tokenizer

pytestmark = pytest.mark.model

WORDS = [
    "The quick brown fox", " jumps over .", "it 's , isn 't ? ' yes ' do n't !", "naïve café", "日本語 テスト", "🙂🙃",
    "\n\nA B\tC", "  spaces  ", "العربية", "Text.\n", "<y> [user]", "maybe",
]  # fmt: skip
STOPS = ["fox", " B", "\n\n", ". ", "語", "🙃", " ' ", "'s ,", "do n", "é 日", "x j", "##", "e", " ", "of the lazy"]
SEQUENCES = int(os.environ.get("HPCJOBS_SEQUENCES", "25"))
every_tokenizer = pytest.mark.parametrize("name", TOKENIZERS)
cleaned = pytest.mark.parametrize("clean", [False, True], ids=["as it is", "cleaned up"])


def tokenizer_of(name: str, clean: bool) -> Any:
    tokenizer = copy.deepcopy(toy_tokenizer(name))
    tokenizer.clean_up_tokenization_spaces = clean
    return tokenizer


def random_tokens(tokenizer: Any, seed: str) -> list[int]:
    """Tokens that a model may make: of words, cut anywhere, any of the vocabulary, and special ones."""
    rng, made = random.Random(seed), list[int]()
    special = tokenizer.convert_tokens_to_ids(SPECIAL)
    for _ in range(rng.randint(1, 7)):
        kind = rng.random()
        if kind < 0.65:
            ids = tokenizer(rng.choice(WORDS), add_special_tokens=False).input_ids
            made += ids[rng.choice([0, 0, 0, 1]) : len(ids) - rng.choice([0, 0, 0, 1])]
        elif kind < 0.85:
            made += [rng.randrange(len(tokenizer)) for _ in range(rng.randint(1, 4))]
        else:
            made.append(rng.choice(special))
    return made or [rng.randrange(len(tokenizer))]


def codec_of(tokenizer: Any) -> TextCodec:
    """A codec without end tokens, so that special tokens stand in the middle of an answer."""
    text = SimpleNamespace(eos_token_id=None, max_position_embeddings=64)
    text.get_text_config = lambda: text
    codec = TextCodec(
        SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=None), config=text),
        tokenizer,
        GenerationConfig(),
    )
    codec._ends = frozenset()
    return codec


@every_tokenizer
@cleaned
def test_the_text_is_decode_of_the_whole(name: str, clean: bool) -> None:
    tokenizer = tokenizer_of(name, clean)
    codec = codec_of(tokenizer)
    for number in range(SEQUENCES):
        made = random_tokens(tokenizer, f"{name} {number}")
        whole = tokenizer.decode(made, skip_special_tokens=True)
        assert codec.answer(made, GenerationConfig()).text == whole
        # A stop string with a special token that does not come changes nothing.
        assert codec.answer(made, GenerationConfig(stop=("<|end|>!",))).text == whole


def first_met(tokenizer: Any, made: list[int], stop: str) -> tuple[int, str] | None:
    """How many tokens it takes until their text has the stop string, and the text before it."""
    special = any(each in stop for each in tokenizer.all_special_tokens)
    for count in range(1, len(made) + 1):
        text = tokenizer.decode(made[:count], skip_special_tokens=not special)
        if stop in text:
            return count, text[: text.index(stop)]
    return None


@every_tokenizer
@cleaned
def test_a_stop_string_ends_the_answer_where_the_text_first_has_it(name: str, clean: bool) -> None:
    tokenizer = tokenizer_of(name, clean)
    codec, met = codec_of(tokenizer), 0
    for number in range(SEQUENCES):
        made = random_tokens(tokenizer, f"{name} {number}")
        text = tokenizer.decode(made, skip_special_tokens=True)
        begin = random.Random(number).randrange(len(text) + 1)
        for stop in {*random.Random(number).sample(STOPS, 4), text[begin : begin + 1 + number % 5]} - {""}:
            stops, expected = StopStrings(tokenizer, [stop]), first_met(tokenizer, made, stop)
            found = next((count for count in range(1, len(made) + 1) if stops.met(made[:count])), None)
            assert found == (expected and expected[0]), (made, stop)
            if expected is not None:
                answer = codec.answer(made[:found], GenerationConfig(stop=(stop,)))
                assert (answer.text, answer.reason, answer.tokens) == (expected[1], "stop", found)
                met += 1
    assert met > SEQUENCES / 2


@every_tokenizer
def test_a_stop_string_with_a_special_token_leaves_the_text_before_it(name: str) -> None:
    """That text is what the tokens before it decode to, also when special tokens stand among them."""
    tokenizer = tokenizer_of(name, False)
    codec = codec_of(tokenizer)
    user, end = tokenizer.convert_tokens_to_ids(["<|user|>", "<|end|>"])
    for number in range(SEQUENCES):
        made = random_tokens(tokenizer, f"{name} {number}")
        made = [token for token in made if token != end]
        stop = "<|end|> <|user|>" if name == "wordpiece" else "<|end|><|user|>"
        answer = codec.answer([*made, end, user], GenerationConfig(stop=(stop,)))
        assert answer.reason == "stop"
        assert answer.text == tokenizer.decode(made, skip_special_tokens=True)


@every_tokenizer
def test_engines_answer_with_the_text_that_generate_decodes(name: str) -> None:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    tokenizer = tokenizer_of(name, clean=True)
    model = model_with(len(tokenizer))
    requests = [Request(index=n, id=str(n), prompt=prompt) for n, prompt in enumerate(WORDS[:8])]
    whole = [generated(model, tokenizer, prompt) for prompt in WORDS[:8]]
    plain = by_index(engine_of("loop", (model, tokenizer), 5, max_new_tokens=16), requests)
    assert [each.text for each in plain] == [tokenizer.decode(made, skip_special_tokens=True) for made in whole]
    stop = tuple(sorted({tokenizer.decode(made[:9], skip_special_tokens=True)[-3:] for made in whole[::3]} - {""}))
    cut = by_index(engine_of("loop", (model, tokenizer), 5, max_new_tokens=16, stop=stop), requests)
    firsts = [min(filter(None, (first_met(tokenizer, made, each) for each in stop)), default=None) for made in whole]
    assert any(firsts)
    found = [(each.completion_tokens, each.text) for each, first in zip(cut, firsts, strict=True) if first]
    assert found == [first for first in firsts if first]


def model_with(vocabulary: int) -> Any:
    """A tiny model with random weights whose answers seldom end or repeat themselves."""
    import torch
    import transformers

    torch.manual_seed(vocabulary)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=256, initializer_range=0.5, eos_token_id=2,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def generated(model: Any, tokenizer: Any, prompt: str) -> list[int]:
    """The new tokens of `generate`, greedy, before the end token."""
    import torch

    ids = torch.tensor([tokenizer(prompt).input_ids])
    made: list[int] = model.generate(ids, max_new_tokens=16, do_sample=False)[0, ids.shape[1] :].tolist()
    return made[: made.index(2)] if 2 in made else made
