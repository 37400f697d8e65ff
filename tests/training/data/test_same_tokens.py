"""What training learns and what answering asks have the same tokens for the same row, whatever the tokenizer."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from hpcjobs.engines.encoding import prompt_ids
from hpcjobs.training.data.encode import Encoder, learned_end
from hpcjobs.training.data.examples import Example
from tests.toy_tokenizers import TEMPLATES, TOKENIZERS, toy_tokenizer

pytestmark = pytest.mark.model

TEXTS = [
    ("Question: The fox\nAnswer:", " Paris"), ("Answer: ", "Paris"), ("The", "quick"), ("The fox\n", "\nis lazy"),
    ("日本", "語 テスト"), ("naïve caf", "é 🙂"), ("<s>The fox", " Rome"), ("A  ", "  B"), ("x", "y"),
]  # fmt: skip
TURNS = ["The fox", "Paris is", "A B", "yes", "  spaces and\nlines ", "42 naïve 🙂", "日本", "語"]


BYTE_BPE = [name for name in TOKENIZERS if name.startswith(("byte", "llama3"))]
CROSSING = {
    *((template, name) for template in ("blank", "words") for name in BYTE_BPE),
    ("mistral", "llama_legacy_bos"), ("colon", "llama_legacy_bos"),
}  # fmt: skip


def chat(turns: int) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[number % 2], "content": TURNS[number]} for number in range(turns)]


def with_template(name: str, template: str) -> Any:
    tokenizer = copy.deepcopy(toy_tokenizer(name))
    tokenizer.chat_template = TEMPLATES[template]
    return tokenizer


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize(("context", "completion"), TEXTS)
def test_of_a_text(name: str, context: str, completion: str) -> None:
    tokenizer = toy_tokenizer(name)
    tokens = Encoder(tokenizer, 400).encode(Example(context, completion))
    asked = prompt_ids(tokenizer, context)
    assert tokens.ids[: len(asked)] == asked
    assert not any(tokens.learned[: len(asked)])
    assert all(tokens.learned[len(asked) :])
    assert tokens.ids[-1] == tokenizer.eos_token_id
    assert tokens.ids.count(tokenizer.eos_token_id) == 1 + asked.count(tokenizer.eos_token_id)
    whole = tokenizer.decode(tokenizer(context + completion, add_special_tokens=False).input_ids)
    if name != "wordpiece":  # which cannot give back a border within a word
        assert tokenizer.decode(tokens.ids, skip_special_tokens=True).strip() == whole.replace("<s>", "").strip()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_of_a_text_without_a_prompt(name: str) -> None:
    tokenizer = toy_tokenizer(name)
    tokens, alone = Encoder(tokenizer, 400).encode(Example("", "The fox")), tokenizer("The fox").input_ids
    assert tokens.ids == [*alone, *([] if alone[-1] == tokenizer.eos_token_id else [tokenizer.eos_token_id])]


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("turns", [2, 4, 6, 8])
def test_of_a_chat_the_last_turn_learned(name: str, template: str, turns: int) -> None:
    tokenizer, whole = with_template(name, template), chat(turns)
    tokens = Encoder(tokenizer, 800).encode(Example(whole[:-1], whole[-1:]))
    asked = prompt_ids(tokenizer, whole[:-1])
    assert tokens.ids[: len(asked)] == asked
    assert tokens.learned == [False] * len(asked) + [True] * (len(tokens.ids) - len(asked))
    written = tokenizer.apply_chat_template(whole, tokenize=False)
    assert tokenizer.decode(tokens.ids) == tokenizer.decode(tokenizer(written, add_special_tokens=False).input_ids)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_of_a_chat_all_turns_learned(name: str, template: str) -> None:
    """Every turn that is learned stands behind the tokens that it is asked with.

    Where a token reaches over the border of a turn (CROSSING), later prompts hold that turn in other tokens than the
    model has when it answers it: no sequence is right for both, and each turn keeps those that it is answered with.
    """
    tokenizer, whole = with_template(name, template), chat(8)
    tokens = Encoder(tokenizer, 800).encode(Example([], whole))
    same = []
    for number in range(1, 8, 2):
        asked = prompt_ids(tokenizer, whole[:number])
        same.append(tokens.ids[: len(asked)] == asked)
        if same[-1]:
            assert tokens.learned[len(asked)]
            assert not tokens.learned[len(asked) - 1]
    assert same[0]
    assert all(same) or (template, name) in CROSSING
    assert tokens.apart == (not same[-1])
    learned = [False, *tokens.learned, False]
    begins = [place for place in range(len(tokens.ids)) if learned[place + 1] and not learned[place]]
    ends = [place + 1 for place in range(len(tokens.ids)) if learned[place + 1] and not learned[place + 2]]
    for number, begin, end in zip(range(1, 8, 2), begins, ends, strict=True):
        prompt = tokenizer.decode(prompt_ids(tokenizer, whole[:number]))
        assert tokenizer.decode(tokens.ids[:begin]) == prompt
        through = tokenizer.apply_chat_template(whole[: number + 1], tokenize=False)
        said = tokenizer.decode(tokenizer(through, add_special_tokens=False).input_ids)
        assert tokenizer.decode(tokens.ids[:end]) == said


@pytest.mark.parametrize("template", ["chatml", "bos", "default_system"])
def test_a_chat_that_begins_with_the_assistant_teaches_no_system_turn(template: str) -> None:
    tokenizer = with_template("byte_bpe_bos", template)
    tokens = Encoder(tokenizer, 400).encode(Example([], [{"role": "assistant", "content": "Hello"}, *chat(1)]))
    learned = [token for token, learn in zip(tokens.ids, tokens.learned, strict=True) if learn]
    assert tokenizer.decode(learned).strip() == "Hello<|end|>"


@pytest.mark.parametrize(
    ("template", "end"), [("chatml", "<|end|>"), ("bos", "<|end|>"), ("colon", "</s>"), ("words", None)]
)
def test_the_end_that_is_learned_is_known(template: str, end: str | None) -> None:
    tokenizer = with_template("byte_bpe", template)
    tokens = Encoder(tokenizer, 400).encode(Example(chat(3), chat(4)[3:]))
    found = learned_end([(tokens.ids, tokens.learned)] * 3, tokenizer)
    assert (None if found is None else tokenizer.convert_ids_to_tokens(found)) == end
