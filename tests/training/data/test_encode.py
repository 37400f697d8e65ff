"""Examples to tokens: what is learned is what the model would have to say, under real tokenizers and templates."""

from __future__ import annotations

from typing import Any

import pytest

from hpcjobs.config import Message, TaskConfig
from hpcjobs.engines.encoding import prompt_ids
from hpcjobs.errors import ConfigError
from hpcjobs.training.data.encode import Encoder, Tokens
from hpcjobs.training.data.examples import Example, Examples

pytestmark = pytest.mark.model


def said(tokenizer: Any, tokens: Tokens) -> str:
    """The text of what is learned."""
    return str(tokenizer.decode([i for i, learned in zip(tokens.ids, tokens.learned, strict=True) if learned]))


def chat(*turns: str) -> list[dict[str, str]]:
    """Turns of user and assistant in turn; the first is the system's where it begins with 'system:'."""
    roles = iter(["user", "assistant"] * len(turns))
    return [
        {"role": "system", "content": turn.removeprefix("system:")}
        if turn.startswith("system:")
        else {"role": next(roles), "content": turn}
        for turn in turns
    ]


def test_of_a_chat_the_assistants_turns_are_learned_and_nothing_else(tiny: tuple[Any, Any]) -> None:
    tokenizer = tiny[1]
    tokens = Encoder(tokenizer, 256).encode(Example([], chat("system:Be brief.", "Hi", "Hello", "Add: 1+2", "3")))
    whole = "<|bos|><|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Hello<|end|><|user|>Add: 1+2<|end|>"
    assert tokenizer.decode(tokens.ids) == f"{whole}<|assistant|>3<|end|>"
    assert said(tokenizer, tokens) == "Hello<|end|>3<|end|>"


def test_the_prompt_is_tokenised_as_it_is_when_the_model_answers_it(tiny: tuple[Any, Any]) -> None:
    tokenizer = tiny[1]
    asked = chat("Spell: wecu")
    tokens = Encoder(tokenizer, 256).encode(Example(asked, [{"role": "assistant", "content": "w-e-c-u"}]))
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(prompt, add_special_tokens=False).input_ids
    assert tokens.ids[: len(ids)] == ids
    assert tokens.learned == [False] * len(ids) + [True] * (len(tokens.ids) - len(ids))


def test_a_text_is_learned_with_its_end(tiny: tuple[Any, Any]) -> None:
    tokenizer = tiny[1]
    tokens = Encoder(tokenizer, 256).encode(Example("Q: 1+2\nA:", " 3"))
    assert tokenizer.decode(tokens.ids) == "Q: 1+2\nA: 3<|end|>"
    assert said(tokenizer, tokens) == " 3<|end|>"


def test_what_is_too_long_is_cut_and_what_has_nothing_left_is_refused(tiny: tuple[Any, Any]) -> None:
    tokenizer = tiny[1]
    example = Example("12345", "6789")
    assert said(tokenizer, Encoder(tokenizer, 7).encode(example)) == "67"
    with pytest.raises(ValueError, match=r"within the first 5 of its 10 tokens \(train.max_length\)"):
        Encoder(tokenizer, 5).encode(example)
    with pytest.raises(ValueError, match="nothing is learned"):
        Encoder(tokenizer, 50).encode(Example([], chat("only a question")))


def test_a_template_that_drops_earlier_thoughts_is_learned_as_it_is_written(tiny: tuple[Any, Any]) -> None:
    """Some templates write the last turn in another way: what stands in the whole chat is what counts."""
    import copy

    tokenizer = copy.deepcopy(tiny[1])
    tokenizer.chat_template = (
        "{%- for m in messages -%}{{ '<|' + m['role'] + '|>' }}"
        "{%- if m['role'] == 'assistant' and loop.last -%}{{ '(thinks)' }}{%- endif -%}{{ m['content'] + '<|end|>' }}"
        "{%- endfor -%}{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}"
    )
    tokens = Encoder(tokenizer, 256).encode(Example([], chat("a", "b")))
    assert said(tokenizer, tokens) == "(thinks)b<|end|>"
    with pytest.raises(ValueError, match="turn 1 in another way when more turns follow"):
        Encoder(tokenizer, 256).encode(Example([], chat("a", "b", "c", "d")))


def test_tokenizers_that_put_a_space_before_a_text_get_none_inside(tiny: tuple[Any, Any]) -> None:
    """As SentencePiece's do: the pieces of a chat together are the ids of the whole."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [(p, -1.0) for p in ["<unk>", "▁", "a", "b", "c", "▁a", "▁b", "\n", "<s>", "</s>", "[", "]"]]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")
    tokens = Encoder(tokenizer, 99).encode(Example("a", "b"))
    names = tokenizer.convert_ids_to_tokens(tokens.ids)
    assert names == ["▁a", "b", "</s>"]
    assert tokens.learned == [False, True, True]


COLUMNS = ["index", "id", "question", "answer"]
ROW = {"index": 0, "id": "0", "question": "1+2", "answer": "3"}


def test_examples_by_template_and_by_column() -> None:
    asks = TaskConfig(messages=(Message(role="user", content="{{ question }}"),), target="{{ answer }}")
    answer = [{"role": "assistant", "content": "3"}]
    assert Examples(asks, COLUMNS).example(ROW) == Example([{"role": "user", "content": "1+2"}], answer)
    plain = TaskConfig(prompt="Q: {{ question }}", target="{{ answer }}")
    assert Examples(plain, COLUMNS).example(ROW) == Example("Q: 1+2", " 3")
    lines = plain.model_copy(update={"delimiter": "\n"})
    assert Examples(lines, COLUMNS).example(ROW) == Example("Q: 1+2", "\n3")
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    of_chat = Examples(TaskConfig(), ["index", "id", "messages"])
    assert of_chat.example({"index": 0, "id": "0", "messages": turns}) == Example([], turns)
    of_texts = Examples(TaskConfig(), ["index", "id", "prompt", "completion"])
    assert of_texts.example({"index": 0, "id": "0", "prompt": "x", "completion": "y"}) == Example("x", "y")
    row = {"index": 0, "id": "0", "prompt": turns[:1], "completion": turns[1:]}
    assert of_texts.example(row) == Example(turns[:1], turns[1:])
    with pytest.raises(ValueError, match="one is a chat and the other a text"):
        of_texts.example(row | {"completion": "y"})


@pytest.mark.parametrize(
    ("task", "columns", "said"),
    [
        (TaskConfig(), COLUMNS, "nothing to learn: .*'prompt' and 'completion'; columns: .*question"),
        (TaskConfig(prompt="{{ question }}"), COLUMNS, "task.target is not set"),
        (TaskConfig(prompt="{{ questoin }}", target="x"), COLUMNS, "did you mean 'question'"),
        (TaskConfig(type="choice", choices=("a",), prompt="x", target="a"), COLUMNS, "task.type is generate"),
    ],
)
def test_a_task_that_cannot_be_learned_is_refused(task: TaskConfig, columns: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Examples(task, columns)


def test_a_row_without_its_chat_is_named() -> None:
    with pytest.raises(ValueError, match="column 'messages' is null"):
        Examples(TaskConfig(), ["messages"]).example({"index": 0, "id": "a", "messages": None})


def test_turns_that_are_asked_with_other_tokens_later_are_told_of() -> None:
    """GPT-2 splits a pair of newlines where text follows: one token before the first answer, two once it is history."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(["a\n\n"] * 9, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<' + m.role + '>\n\n' + m.content + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<assistant>\n\n' }}{% endif %}"
    )
    tokens = Encoder(tokenizer, 256).encode(Example([], chat("a", "b")))
    asked = prompt_ids(tokenizer, chat("a"))
    assert tokens.ids[: len(asked)] == asked
    assert not tokens.apart
    assert Encoder(tokenizer, 256).encode(Example([], chat("a", "b", "c", "d"))).apart
    later = Encoder(tokenizer, 256).encode(Example(chat("a", "b", "c"), [{"role": "assistant", "content": "d"}]))
    asked = prompt_ids(tokenizer, chat("a", "b", "c"))
    assert later.ids[: len(asked)] == asked
