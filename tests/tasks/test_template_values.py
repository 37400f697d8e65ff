"""Columns `tools` and `documents` beside a chat go to the chat template as transformers' own would have them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.config import TaskConfig
from hpcjobs.engines.chat_template import chat_text
from hpcjobs.engines.encoding import prompt_ids
from hpcjobs.errors import ConfigError
from hpcjobs.plan.chat_template import chat_renderer, check_chats
from hpcjobs.requests import Chat, template_values
from hpcjobs.tasks.prompts import Prompts
from hpcjobs.training.data.encode import Encoder
from hpcjobs.training.data.examples import Examples
from tests.toy_tokenizers import TOKENIZERS, toy_tokenizer

pytestmark = pytest.mark.model

# As templates of Llama 3.1, Qwen and Command R write them.
TEMPLATE = """
{%- if tools %}{{ '<tools>' }}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{{ '</tools>' }}{% endif %}
{%- for document in documents or [] %}{{ '<doc>' + document.title + ': ' + document.text + '</doc>' }}{% endfor %}
{%- for turn in messages %}
{{- '[' + turn.role + '] ' + (turn.content or '') }}
{%- for call in turn.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}{{ '\\n' }}
{%- endfor %}{% if add_generation_prompt %}{{ '[assistant] ' }}{% endif %}"""
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather in a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
DOCUMENTS = [{"title": "Facts", "text": "It rains in Bergen."}]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Bergen"}}}
CHAT: Chat = [
    {"role": "user", "content": "Will it rain?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "name": "weather", "content": "rain"},
]
ANSWER = {"role": "assistant", "content": "maybe"}
VALUES: list[dict[str, Any]] = [
    {"tools": TOOLS},
    {"tools": json.dumps(TOOLS)},
    {"documents": DOCUMENTS},
    {"tools": TOOLS, "documents": DOCUMENTS},
    {"tools": None, "documents": None},
    {"tools": [], "documents": []},
    {},
]
each_value = pytest.mark.parametrize("values", VALUES, ids=lambda values: " ".join(values) or "none")


def tokenizer_with(name: str, template: str = TEMPLATE) -> Any:
    tokenizer = copy.deepcopy(toy_tokenizer(name))
    tokenizer.chat_template = template
    return tokenizer


def given(values: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `apply_chat_template` by hand."""
    return {name: json.loads(value) if isinstance(value, str) else value for name, value in values.items()}


@each_value
@pytest.mark.parametrize("name", TOKENIZERS)
def test_an_answer_is_asked_for_as_transformers_would(name: str, values: dict[str, Any]) -> None:
    tokenizer, row = tokenizer_with(name), {"index": 0, "id": "a", "messages": CHAT, **values}
    prompt = Prompts(TaskConfig(), row).request(row, 0).prompt
    by_hand = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, tokenize=False, **given(values))
    assert not isinstance(prompt, str)
    assert chat_text(tokenizer, prompt, ask=True) == by_hand
    assert prompt_ids(tokenizer, prompt) == tokenizer(by_hand, add_special_tokens=False).input_ids


@each_value
@pytest.mark.parametrize("split", [False, True], ids=["messages", "prompt and completion"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_training_learns_after_the_same_text(name: str, split: bool, values: dict[str, Any]) -> None:
    tokenizer = tokenizer_with(name)
    chats = {"prompt": CHAT, "completion": [ANSWER]} if split else {"messages": [*CHAT, ANSWER]}
    row = {"index": 0, "id": "a", **chats, **values}
    tokens = Encoder(tokenizer, 4096).encode(Examples(TaskConfig(), row).example(row))
    whole = tokenizer.apply_chat_template([*CHAT, ANSWER], tokenize=False, **given(values))
    before = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, tokenize=False, **given(values))
    decoded = tokenizer.decode(tokens.ids, skip_special_tokens=False)
    assert decoded == tokenizer.decode(tokenizer(whole, add_special_tokens=False).input_ids, skip_special_tokens=False)
    last = [one for one, learned in zip(tokens.ids, tokens.learned, strict=True) if learned]
    assert tokenizer.decode(last, skip_special_tokens=False).strip().endswith("maybe")
    asked = Prompts(TaskConfig(), {"messages": CHAT, **values}).prompt({"messages": CHAT, **values})
    assert not isinstance(asked, str)
    assert chat_text(tokenizer, asked, ask=True) == before


@each_value
def test_the_plan_renders_them_too(tmp_path: Path, values: dict[str, Any]) -> None:
    tokenizer = tokenizer_with(next(iter(TOKENIZERS)))
    tokenizer.save_pretrained(tmp_path)
    prompt = Prompts(TaskConfig(), {"messages": CHAT, **values}).prompt({"messages": CHAT, **values})
    assert not isinstance(prompt, str)
    check_chats(tmp_path, [prompt])
    by_hand = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, tokenize=False, **given(values))
    assert chat_renderer(tmp_path)(prompt) == by_hand


@pytest.mark.parametrize("column", ["tools", "documents"])
def test_a_template_that_leaves_them_out_is_refused(tmp_path: Path, column: str) -> None:
    template = "{{ '[some]' if tools or documents }}{% for turn in messages %}{{ turn.content }}{% endfor %}"
    tokenizer = tokenizer_with(next(iter(TOKENIZERS)), template)
    tokenizer.save_pretrained(tmp_path)
    row = {"messages": CHAT[:1], "tools": TOOLS if column == "tools" else None, "documents": DOCUMENTS}
    row = {"messages": CHAT[:1], column: row[column]}
    prompt = Prompts(TaskConfig(), row).prompt(row)
    assert not isinstance(prompt, str)
    with pytest.raises(ValueError, match=f"leaves out the row's {column}: take a model whose"):
        chat_text(tokenizer, prompt, ask=True)
    with pytest.raises(ConfigError, match=f"refuses the first rows: .* leaves out the row's {column}"):
        check_chats(tmp_path, [prompt])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("{", "is no JSON: '{'$"), ("", r"is no JSON: ''; with data\.types: \{tools: json\} an empty one is null"),
        ('{"a": 1}', "is no list"), (7, "is no list"), (["{}"], "has items that are no objects"),
    ],
)  # fmt: skip
def test_what_is_no_list_is_an_error_of_the_sample(value: object, said: str) -> None:
    row = {"messages": CHAT, "tools": value}
    with pytest.raises(ValueError, match=f"column 'tools' of a row with a chat {said}"):
        Prompts(TaskConfig(), row).prompt(row)


def test_with_a_prompt_of_ones_own_they_are_columns_like_others() -> None:
    row = {"q": "x", "tools": 7}
    task = TaskConfig.model_validate({"messages": ({"role": "user", "content": "{{ q }}{{ tools }}"},)})
    prompt = Prompts(task, row).prompt(row)
    assert prompt == [{"role": "user", "content": "x7"}]
    assert not isinstance(prompt, str)
    assert not template_values(prompt)
