"""Prompts to tokens and tokens to answers, under tokenizers of every kind."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from hpcjobs.config import GenerationConfig
from hpcjobs.engines.chat_template import chat_text
from hpcjobs.engines.encoding import Answer, Encoded, TextCodec, completion_of, prompt_ids, repeat_seed
from hpcjobs.engines.end_tokens import end_tokens
from hpcjobs.requests import Completion, Request
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


def codec(positions: int = 64, rope: Any = None, **generation: Any) -> TextCodec:
    model = model_of()
    model.config.max_position_embeddings = positions
    model.config.rope_parameters = rope
    vars(model.generation_config).update(generation)
    return TextCodec(model, toy_tokenizer("byte_bpe"), GenerationConfig(max_new_tokens=5))


def words(coder: TextCodec, count: int) -> str:
    """A text of so many tokens."""
    one = "The fox "
    ids = coder.tokenizer(one * count, add_special_tokens=False).input_ids[:count]
    text = str(coder.tokenizer.decode(ids))
    assert len(prompt_ids(coder.tokenizer, text)) == count
    return text


@pytest.mark.parametrize(
    ("rope", "positions"),
    [(None, 64), ({"rope_type": "dynamic", "factor": 2.0}, 128), ({"rope_type": "linear", "factor": 2.0}, 64)],
)
def test_new_tokens_are_as_many_as_fit_the_positions(rope: Any, positions: int) -> None:
    coder = codec(rope=rope)
    for count, limit in ((1, 5), (positions - 5, 5), (positions - 4, 4), (positions - 1, 1)):
        made = coder.encode(Request(index=3, id="x", prompt=words(coder, count)))
        assert isinstance(made, Encoded)
        assert (len(made.ids), made.limit) == (count, limit)
    full = f"prompt of {positions} tokens leaves no room in the model's {positions} positions"
    for text, why in ((words(coder, positions), full), ("", "prompt has no tokens")):
        failed = coder.encode(Request(index=3, id="x", prompt=text))
        assert isinstance(failed, Completion)
        assert failed.index == 3
        assert failed.error is not None
        assert why in failed.error.message


def test_a_prompt_is_cut_on_the_left_to_leave_room_for_all_new_tokens() -> None:
    coder = codec()
    text, ids = words(coder, 70), prompt_ids(codec().tokenizer, words(coder, 70))
    for new in (5, 63):
        request = Request(
            index=0, id="x", prompt=text, truncate="left", generation=GenerationConfig(max_new_tokens=new)
        )
        made = coder.encode(request)
        assert isinstance(made, Encoded)
        assert made.ids == ids[-(64 - new) :]
        assert made.limit == new
        short = coder.encode(replace(request, prompt=words(coder, 1)))
        assert isinstance(short, Encoded)
        assert len(short.ids) == 1
    full = coder.encode(replace(request, generation=GenerationConfig(max_new_tokens=64)))
    assert isinstance(full, Completion)
    assert full.error is not None
    assert "64 new tokens leave no room for a prompt in the model's 64 positions" in full.error.message


def test_an_answer_ends_before_its_end_token_and_counts_it() -> None:
    coder = codec()
    tokens = coder.tokenizer("The fox", add_special_tokens=False).input_ids
    end = min(coder.ends(GenerationConfig()))
    assert coder.answer([*tokens, end, *tokens], GenerationConfig()) == Answer("The fox", "stop", len(tokens) + 1)
    assert coder.answer(tokens, GenerationConfig()) == Answer("The fox", "length", len(tokens))
    assert coder.answer([end], GenerationConfig()) == Answer("", "stop", 1)
    assert coder.answer(tokens, GenerationConfig(stop=(" f",))) == Answer("The", "stop", len(tokens))


def test_the_models_own_stop_strings_stop_too() -> None:
    coder = codec(stop_strings=["fox", "END"])
    assert coder.with_stops(GenerationConfig(stop=("END",))).stop == ("END", "fox")
    same = GenerationConfig(stop=("fox", "END"))
    assert coder.with_stops(same) is same
    made = coder.encode(Request(index=0, id="x", prompt="The fox"))
    assert isinstance(made, Encoded)
    assert made.generation.stop == ("fox", "END")


def test_several_answers_are_one_completion() -> None:
    coder = codec()
    made = coder.encode(Request(index=4, id="x", prompt="The fox", seed=11))
    assert isinstance(made, Encoded)
    answers = [Answer("a", "stop", 2), Answer("b", "length", 3)]
    both, one = completion_of(made, answers, 1.0), completion_of(made, answers[:1], 1.0)
    assert (both.index, both.text, both.texts, both.finish_reason) == (4, "a", ("a", "b"), "stop")
    assert (both.prompt_tokens, both.completion_tokens, one.completion_tokens) == (len(made.ids), 5, 2)
    assert (one.texts, one.started_at) == ((), 1.0)
    assert one.seconds > 1e6, "since it was started"
    assert [repeat_seed(made.request, number) for number in range(3)] == [11, 12, 13]
