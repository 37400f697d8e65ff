"""The model's own chat template, rendered when planning: on the login node, without torch or transformers.

What it refuses, such as a system turn, or a model without one, would make an error of every sample.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from hpcjobs.config import Config
from hpcjobs.engines.chat_template import checked_text, template_turns
from hpcjobs.errors import ConfigError
from hpcjobs.plan.model import model_folder
from hpcjobs.requests import Chat, Row, Turn, template_values
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.json_columns import python_rows

# Rows whose chats are rendered.
_ROWS_TRIED = 3


class _Generation(Extension):
    """`{% generation %}` of training templates: what it holds, as it is."""

    tags = {"generation"}  # noqa: RUF012  # as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The nodes between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def check_first_chats(config: Config, table: pa.Table, chat_of: Callable[[Row], Chat | None]) -> list[str]:
    """`check_chats` with the first rows, if the model is here, and a note if their text depends on the day.

    Rows that `chat_of` fails on are errors of their own.
    """
    folder = model_folder(config)
    if folder is None:
        return []
    chats = list[Chat]()
    for row in python_rows(table.slice(0, _ROWS_TRIED)):
        with contextlib.suppress(Exception):
            chat = chat_of(row)
            chats += [] if chat is None else [chat]
    check_chats(folder, chats)
    templates = templates_of(folder)
    dated = any("strftime_now(" in templates[_chosen(templates, chat)] for chat in chats)
    return ["the chat template writes the day's date: on another day the prompts are others"] if dated else []


def check_chats(folder: Path, chats: Sequence[Chat]) -> None:
    """Render chats with the template of the model in `folder`. Raises a ConfigError if there is none, or it refuses."""
    if not chats:
        return
    if not templates_of(folder):
        processor = (folder / "chat_template.json").is_file()
        hint = " (its chat_template.json is for a processor, not for the tokenizer)" if processor else ""
        raise ConfigError(
            f"model {folder} has no chat template, as base models do, and the task asks with chats (messages): set "
            f"task.prompt to a text instead of task.messages{hint}"
        )
    render = chat_renderer(folder)
    for chat in chats:
        try:
            checked_text(chat, render)
        except Exception as error:  # a template may raise anything
            system = any(turn["role"] == "system" for turn in chat)
            hint = "; if it takes no system turn, write that text into the user's" if system else ""
            raise ConfigError(f"the chat template of model {folder} refuses the first rows: {error}{hint}") from None


def chat_renderer(folder: Path, asks: bool = True) -> Callable[[Sequence[Turn]], str]:
    """Gives the text of a chat, and if it `asks` what the template writes before an answer.

    What is given raises a jinja2.TemplateError, also for a template that is none, and what else a template raises.
    """
    values = {**special_tokens(folder), "tools": None, "documents": None, "add_generation_prompt": asks}
    templates, environment = templates_of(folder), _environment()

    @functools.cache
    def compiled(name: str) -> jinja2.Template:
        return environment.from_string(templates[name])

    def render(chat: Sequence[Turn]) -> str:
        template = compiled(_chosen(templates, chat))
        return template.render(messages=template_turns(chat), **{**values, **template_values(chat)})

    return render


def _chosen(templates: Mapping[str, str], chat: Sequence[Turn]) -> str:
    """The name of the template for a chat, by the rule of transformers' `get_chat_template`."""
    if "tool_use" in templates and template_values(chat).get("tools") is not None:
        return "tool_use"
    if "default" not in templates:
        has = f"only those named {', '.join(sorted(templates))}, none of them default" if templates else "none"
        raise jinja2.TemplateError(f"of chat templates the model has {has}")
    return "default"


def templates_of(folder: Path) -> dict[str, str]:
    """The templates by name, as transformers' tokenizers find them: files of their own, else tokenizer_config.json."""
    files = {"default": folder / "chat_template.jinja"}
    files |= {file.name.removesuffix(".jinja"): file for file in (folder / "additional_chat_templates").glob("*.jinja")}
    found = {name: file.read_text(encoding="utf-8") for name, file in files.items() if file.is_file()}
    if found:
        return found
    one = _json(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(one, list):
        return {each["name"]: each["template"] for each in one}
    return {} if one is None else {"default": one}


def special_tokens(folder: Path) -> dict[str, str]:
    """The texts of bos_token, eos_token and others, which templates write."""
    config = _json(folder / "tokenizer_config.json")
    values = _json(folder / "special_tokens_map.json") | config | _dict(config.get("extra_special_tokens"))
    named = {name: value for name, value in values.items() if name.endswith("_token")}
    texts = {name: _dict(token).get("content", token) for name, token in named.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _json(path: Path) -> dict[str, Any]:
    values = read_json(path) if path.is_file() else {}
    return values if isinstance(values, dict) else {}


def _environment() -> ImmutableSandboxedEnvironment:
    """The environment that transformers renders chat templates in (utils/chat_template_utils.py, version 5)."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    functions: dict[str, Callable[..., Any]] = {"raise_exception": _refuse, "strftime_now": _now}
    environment.globals.update(functions)
    return environment


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
