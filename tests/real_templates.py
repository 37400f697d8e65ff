"""Chat templates of real models, those that TRL ships, and chats to render with them.

`NAMES` are some of them; with HPCJOBS_TEMPLATES=whole in the environment all.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path

from hpcjobs.requests import Chat


def trl_templates() -> dict[str, Path]:
    spec = importlib.util.find_spec("trl")
    assert spec is not None
    assert spec.origin is not None
    return {path.stem: path for path in sorted((Path(spec.origin).parent / "chat_templates").glob("*.jinja"))}


REAL = trl_templates()
# No tools; tools in the system turn; parts alone (idefics3, llava); channels (gptoss); words beside calls dropped.
SOME = ("cohere", "deepseekv3", "gemma3", "gptoss", "idefics3", "llama3_1", "llava_next", "phi3", "qwen2_5", "qwen3_vl")
NAMES = tuple(REAL) if os.environ.get("HPCJOBS_TEMPLATES") == "whole" else SOME

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
FUNCTION = {"name": "weather", "arguments": {"city": "Bergen"}}
CALL = {"type": "function", "id": "123456789", "function": FUNCTION}
TEXT_CALL = {**CALL, "function": {**FUNCTION, "arguments": json.dumps(FUNCTION["arguments"])}}
USER, ASSISTANT = {"role": "user", "content": "Will it rain?"}, {"role": "assistant", "content": "Perhaps."}
AGAIN = {"role": "user", "content": "Sure?"}
TOOL = {"role": "tool", "name": "weather", "tool_call_id": "123456789", "content": "rain"}
CHATS: dict[str, Chat] = {
    "one turn": [USER],
    "system": [{"role": "system", "content": "Be brief."}, USER],
    "three turns": [USER, ASSISTANT, AGAIN],
    "a call without content": [USER, {"role": "assistant", "tool_calls": [CALL]}, TOOL],
    "a call with null": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}, TOOL],
    "a call whose arguments are text": [USER, {"role": "assistant", "content": "", "tool_calls": [TEXT_CALL]}, TOOL],
    "words beside a call": [USER, {**ASSISTANT, "tool_calls": [CALL]}, TOOL],
    "null keys": [{**USER, "tool_calls": None, "name": None}, {**ASSISTANT, "thinking": None}, AGAIN],
    "reasoning": [USER, {**ASSISTANT, "reasoning": "Clouds."}, AGAIN],
    "thinking before a call": [USER, {"role": "assistant", "thinking": "Clouds.", "tool_calls": [CALL]}, TOOL],
    "system in between": [USER, ASSISTANT, {"role": "system", "content": "Now briefly."}, AGAIN],
}


def attempt(make: Callable[[], str]) -> str | None:
    try:
        return make()
    except Exception:
        return None
