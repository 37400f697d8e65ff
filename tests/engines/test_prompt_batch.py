"""Prompts of one call: what is a list of texts and chats, and what is not. tests/test_connector.py asks a model."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from hpcjobs.engines.prompt_batch import prompt_batch
from hpcjobs.errors import UsageError
from hpcjobs.requests import ToolChat

CHAT = [{"role": "user", "content": "a"}]


def test_texts_and_chats_keep_their_order_and_missing_ones_are_none() -> None:
    assert prompt_batch(["a", CHAT, None, float("nan"), [], (CHAT[0],)]) == ["a", CHAT, None, None, None, CHAT]
    assert prompt_batch(pa.array(["a", None])) == ["a", None]
    assert prompt_batch(text for text in "ab") == ["a", "b"]
    assert prompt_batch([]) == []


def test_a_chat_keeps_its_tools() -> None:
    chat = ToolChat(CHAT, {"tools": [{}]})
    assert prompt_batch([chat])[0] is chat


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ("a", "one text"), (b"a", "one text"), (CHAT, "one chat"), (None, "a NoneType is no list"), (1.5, "a float is"),
        ({"q": ["a"]}, "a dict is no list"), ({"a"}, "a set is no list"), (pa.table({"q": ["a"]}), "a Table is no"),
        (["a", 7], "prompt 1 is a int;"), ([{"q": "a"}], "prompt 0 is a dict: pass what is asked of a row"),
        ([["a", "b"]], "prompt 0 is a list of texts"), ([CHAT, [CHAT]], "prompt 1 is a list;"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_prompts_is_refused(prompts: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        prompt_batch(prompts)
