"""Chats through the chat templates of real models, against transformers by hand.

The templates are those that TRL ships. CI takes some of them; `HPCJOBS_TEMPLATES=whole make test
ARGS="tests/reference/test_chat_templates.py"` all.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.config import TaskConfig
from hpcjobs.engines.chat_template import chat_text, checked_text
from hpcjobs.plan.chat_template import chat_renderer, templates_of
from hpcjobs.requests import Chat
from hpcjobs.tasks.prompts import Prompts
from tests.real_templates import CHATS, NAMES, REAL, TOOLS, USER, attempt
from tests.toy_tokenizers import TEMPLATES, TOKENIZERS, toy_tokenizer

pytestmark = pytest.mark.model


def by_hand(tokenizer: Any, chat: Chat, tools: Any) -> str | None:
    """The text by `apply_chat_template`; None if the template refuses the chat."""
    how = {"tools": tools, "add_generation_prompt": True, "tokenize": False}
    return attempt(lambda: str(tokenizer.apply_chat_template(chat, **how)))


def ours(tokenizer: Any, folder: Path, chat: Chat, tools: Any) -> str | None:
    """The text that is asked, which is the one of the plan; None if both refuse the row."""
    row = {"messages": chat} | ({} if tools is None else {"tools": tools})
    prompt = Prompts(TaskConfig(), row).prompt(row)
    assert not isinstance(prompt, str)
    asked = attempt(lambda: chat_text(tokenizer, prompt, ask=True))
    assert attempt(lambda: checked_text(prompt, chat_renderer(folder))) == asked
    return asked


def saved(folder: Path, template: Any, name: str = "byte_bpe_bos") -> Any:
    tokenizer = copy.deepcopy(toy_tokenizer(name))
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return tokenizer


def whole(text: str | None, chat: Chat, tools: Any) -> bool:
    """Whether a text has all words of a chat, its calls and its tools: then there is no reason to refuse it."""
    words = [turn.get("content") or "" for turn in chat if not turn.get("tool_calls")]
    words += ["Bergen"] if any(turn.get("tool_calls") for turn in chat) else []
    words += ["The weather in a city."] if tools else []
    return text is not None and all(word in text for word in words)


@pytest.mark.parametrize("name", NAMES)
def test_a_chat_is_asked_as_by_hand_or_refused(name: str, tmp_path: Path) -> None:
    tokenizer = saved(tmp_path, REAL[name].read_text(encoding="utf-8"))
    for title, chat in CHATS.items():
        for tools in (None, TOOLS):
            theirs, made = by_hand(tokenizer, chat, tools), ours(tokenizer, tmp_path, chat, tools)
            parts = by_hand(tokenizer, in_parts(chat), tools)
            if whole(theirs, chat, tools):
                assert made == theirs, title
            elif whole(parts, chat, tools):
                assert made == parts, title
            else:
                assert made in (None, theirs), title


def in_parts(chat: Chat) -> Chat:
    return [
        {**turn, "content": [{"type": "text", "text": turn["content"]}]} if turn.get("content") else turn
        for turn in chat
    ]


def test_a_template_that_reads_parts_alone_gets_parts(tmp_path: Path) -> None:
    tokenizer = saved(tmp_path, REAL["idefics3"].read_text(encoding="utf-8"))
    assert "Will it rain?" not in str(by_hand(tokenizer, [USER], None))
    assert ours(tokenizer, tmp_path, [USER], None) == by_hand(tokenizer, in_parts([USER]), None)


def test_words_that_a_template_drops_are_an_error() -> None:
    tokenizer = copy.deepcopy(toy_tokenizer("byte_bpe"))
    tokenizer.chat_template = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
    with pytest.raises(ValueError, match=r"the chat template leaves out turn 0 \(system\)"):
        chat_text(tokenizer, CHATS["system"], ask=True)
    assert chat_text(tokenizer, [USER], ask=True) == "Will it rain?"


NAMED = {
    "default": "D{{ tools | tojson if tools }}{{ messages[0].content }}",
    "tool_use": "T{{ tools | tojson }}{{ messages[0].content }}",
}
OTHERS = NAMED | {"rag": "R{{ messages[0].content }}"}


@pytest.mark.parametrize("files", [True, False], ids=["files", "tokenizer_config"])
@pytest.mark.parametrize("tools", [None, [], TOOLS], ids=["no tools", "empty tools", "tools"])
@pytest.mark.parametrize(
    "templates",
    [NAMED, OTHERS, {"default": OTHERS["default"]}, {"tool_use": OTHERS["tool_use"]}, {"rag": OTHERS["rag"]}],
    ids=", ".join,
)
def test_of_several_templates_the_one_that_transformers_takes(
    tmp_path: Path, templates: dict[str, str], tools: Any, files: bool
) -> None:
    from transformers import AutoTokenizer

    tokenizer = copy.deepcopy(toy_tokenizer("byte_bpe_bos"))
    tokenizer.chat_template = templates
    tokenizer.save_pretrained(tmp_path, save_jinja_files=files)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert templates_of(tmp_path) == templates
    made = ours(loaded, tmp_path, [USER], tools)
    assert made == by_hand(loaded, [USER], tools)
    assert (made is None) == ("default" not in templates and not (tools is not None and "tool_use" in templates))


def test_files_go_before_the_list_in_tokenizer_config(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    saved(tmp_path, OTHERS)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": "C"}))
    assert templates_of(tmp_path) == AutoTokenizer.from_pretrained(tmp_path).chat_template == OTHERS


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_plan_writes_the_special_tokens_and_turns_of_every_tokenizer(name: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    special = "".join(f"[{{{{ {one}_token }}}}]" for one in ("bos", "eos", "unk", "pad", "cls", "sep", "mask"))
    for title, template in TEMPLATES.items():
        saved(tmp_path, special + template, name)
        loaded = AutoTokenizer.from_pretrained(tmp_path)
        for chat in (CHATS["one turn"], CHATS["system"], CHATS["three turns"]):
            assert chat_renderer(tmp_path)(chat) == by_hand(loaded, chat, None), title
