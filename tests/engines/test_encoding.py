"""Prompts to tokens and tokens to answers, under tokenizers of every kind."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest

from hpcjobs.config import GenerationConfig
from hpcjobs.engines.chat_template import chat_text
from hpcjobs.engines.encoding import TextCodec, prompt_ids
from hpcjobs.engines.end_tokens import end_tokens
from tests.toy_tokenizers import TOKENIZERS, toy_tokenizer

pytestmark = pytest.mark.model
TURN = [{"role": "user", "content": "The fox"}]


def model_of(generation: Any = None, config: Any = None) -> Any:
    """What a coder asks of a model: its end tokens and its positions."""
    text = SimpleNamespace(eos_token_id=config, max_position_embeddings=64)
    text.get_text_config = lambda: text
    return SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=generation), config=text)


def with_template(name: str, template: str) -> Any:
    tokenizer = copy.deepcopy(toy_tokenizer(name))
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("name", [name for name in TOKENIZERS if toy_tokenizer(name).bos_token])
@pytest.mark.parametrize("text", ["The fox", "<s>The fox", "<s><|user|>The fox<|end|>"])
def test_the_first_token_stands_once(name: str, text: str) -> None:
    """Whoever rendered the text; as lm-evaluation-harness has it (`HFLM.tok_batch_encode`)."""
    tokenizer = toy_tokenizer(name)
    ids = prompt_ids(tokenizer, text)
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids == tokenizer(text, add_special_tokens=not text.startswith("<s>")).input_ids


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_chat_has_the_tokens_of_its_template_alone(name: str) -> None:
    tokenizer = with_template(name, "<s>{% for m in messages %}{{ m.content }}<|end|>{% endfor %}")
    assert prompt_ids(tokenizer, TURN) == tokenizer("<s>The fox<|end|>", add_special_tokens=False).input_ids


def test_the_ends_are_those_of_all_who_name_some() -> None:
    tokenizer = toy_tokenizer("byte_bpe_bos")
    assert end_tokens(model_of(), tokenizer) == {2}
    assert end_tokens(model_of([7, 5], 9), tokenizer) == {2, 5, 7, 9}
    assert end_tokens(model_of(0), tokenizer) == {0, 2}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_stop_string_that_is_a_special_token_ends_the_answer(name: str) -> None:
    tokenizer = toy_tokenizer(name)
    coder = TextCodec(model_of(), tokenizer, GenerationConfig())
    made = tokenizer("yes no<|end|>maybe", add_special_tokens=False).input_ids
    stopped = coder.answer(made, GenerationConfig(stop=("<|end|>",)))
    assert (stopped.text.strip(), stopped.reason) == ("yes no", "stop")
    within = coder.answer(made, GenerationConfig(stop=("no<|end|>",)))
    assert (within.text.strip(), within.reason) == ("yes", "stop") or name == "wordpiece"
    unstopped = coder.answer(made, GenerationConfig())
    assert unstopped.reason == "length"
    assert "<|end|>" not in unstopped.text


def test_a_turn_without_content_is_never_the_word_none() -> None:
    writes = with_template("byte_bpe", "{% for m in messages %}{{ m.get('content') }}<|end|>{% endfor %}")
    with pytest.raises(ValueError, match=r"turn 1 \(assistant\) has no content, and the chat template writes it as"):
        chat_text(writes, [*TURN, {"role": "assistant", "content": None}], ask=False)
    kind = with_template("byte_bpe", "{% for m in messages %}{{ m.content or '' }}<|end|>{% endfor %}")
    assert chat_text(kind, [*TURN, {"role": "assistant", "content": None}], ask=False) == "The fox<|end|><|end|>"


def test_tool_calls_are_written_or_the_row_is_refused() -> None:
    calls = [{"function": {"name": "f", "arguments": {"a": 1}}}]
    call = {"role": "assistant", "content": None, "tool_calls": calls}
    knows = "{% for m in messages %}{{ m.content or '' }}{{ (m.tool_calls or []) | tojson }}<|end|>{% endfor %}"
    assert '"arguments"' in chat_text(with_template("byte_bpe", knows), [*TURN, call], ask=False)
    ignores = "{% for m in messages %}{{ m.content or '' }}<|end|>{% endfor %}"
    with pytest.raises(ValueError, match=r"leaves out the tool_calls of turn 1 \(assistant\)"):
        chat_text(with_template("byte_bpe", ignores), [*TURN, call], ask=False)
    # As vLLM's template for Mistral does: it marks a call, and writes the turn's words in its place.
    marks = "{% for m in messages %}{{ '[CALL]' if m.tool_calls }}{{ m.content }}<|end|>{% endfor %}"
    with pytest.raises(ValueError, match=r"leaves out the tool_calls of turn 1 \(assistant\)"):
        chat_text(with_template("byte_bpe", marks), [*TURN, call], ask=False)
    first = "{% for m in messages %}{{ m.content }}{{ m.tool_calls[0] | tojson if m.tool_calls }}<|end|>{% endfor %}"
    assert '"arguments"' in chat_text(with_template("byte_bpe", first), [*TURN, call], ask=False)
    two = {**call, "tool_calls": [*calls, {"function": {"name": "g", "arguments": {}}}]}
    with pytest.raises(ValueError, match=r"leaves out the tool_calls of turn 1 \(assistant\)"):
        chat_text(with_template("byte_bpe", first), [*TURN, two], ask=False)
    old = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    with pytest.raises(ValueError, match=r"leaves out the function_call of turn 1 \(assistant\)"):
        chat_text(with_template("byte_bpe", knows), [*TURN, old], ask=False)


def test_content_in_parts_goes_to_the_template_as_it_is() -> None:
    """As a user of the connector may give it."""
    reads = "{% for m in messages %}{% for part in m.content %}{{ part.text or '<image>' }}|{% endfor %}{% endfor %}"
    parts = [{"type": "image"}, {"type": "text", "text": "What?"}, {"type": "text", "text": "Where?"}]
    chat = [{"role": "user", "content": parts}]
    assert chat_text(with_template("byte_bpe", reads), chat, ask=True) == "<image>|What?|Where?|"
    writes = with_template("byte_bpe", "{% for m in messages %}{{ m.role }}{% endfor %}")
    with pytest.raises(ValueError, match=r"leaves out turn 0 \(user\)"):
        chat_text(writes, chat, ask=True)
