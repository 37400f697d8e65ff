"""Rows to prompts and targets: jinja2, strict about what a row does not have."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jinja2
import jinja2.meta
from jinja2.sandbox import SandboxedEnvironment

from hpcjobs.config import TaskConfig
from hpcjobs.errors import ConfigError, did_you_mean
from hpcjobs.records import Chat, Prompt, Target

_EXPRESSION = re.compile(r"\s*\{\{(?P<expression>(?:(?!\}\}|\{\{).)*)\}\}\s*", re.DOTALL)
_environment = SandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)


class _AnyColumn(list[str]):
    """The columns of a data set that has none: whatever a template names."""

    def __contains__(self, name: object) -> bool:
        return True


class Template:
    """One jinja2 text over a row; a ConfigError where it does not parse or names a column that is not there."""

    def __init__(self, text: str, key: str, columns: Sequence[str]) -> None:
        self._key = key
        try:
            names = jinja2.meta.find_undeclared_variables(_environment.parse(text))
            self._template = _environment.from_string(text)
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(f"{key}: not a jinja2 template: {error.message} (its line {error.lineno})") from None
        for name in sorted(name for name in names - set(_environment.globals) if name not in columns):
            raise ConfigError(
                f"{key}: the template names column {name!r}, which the data set does not have"
                f"{did_you_mean(name, columns)}; its columns: {', '.join(columns) or 'none'}"
            )
        self.columns = names & set(columns)
        match = _EXPRESSION.fullmatch(text)
        self._expression = (
            _environment.compile_expression(match["expression"], undefined_to_none=False) if match else None
        )

    def text(self, row: Mapping[str, Any]) -> str:
        return self._template.render(row)

    def value(self, row: Mapping[str, Any]) -> Any:
        """What a lone `{{ expression }}` gives, a list as a list; else the text."""
        if self._expression is None:
            return self.text(row)
        value = self._expression(**row)
        if isinstance(value, jinja2.Undefined):
            raise jinja2.UndefinedError(f"{self._key} is undefined for this row")
        return value


class Prompts:
    """The prompts and targets of a task over rows with the given columns."""

    def __init__(self, task: TaskConfig, columns: Iterable[str]) -> None:
        columns = list(columns)
        if not set(columns) - {"index", "id"}:
            columns = _AnyColumn()  # an empty file names no columns, and has no row to miss one
        self._column: str | None = None
        self._messages: list[tuple[str, Template]] = []
        self._prompt = Template(task.prompt, "task.prompt", columns) if task.prompt is not None else None
        if task.prompt is not None and task.messages:
            raise ConfigError("task.prompt and task.messages are both set: a task has one of them")
        for number, message in enumerate(task.messages or ()):
            template = Template(message.content, f"task.messages.{number}.content", columns)
            self._messages.append((message.role, template))
        if self._prompt is None and not self._messages:
            self._column = next((name for name in ("messages", "prompt") if name in columns), None)
            if self._column is None:
                raise ConfigError(
                    "nothing to ask: set task.messages or task.prompt, or bring a column 'messages' or 'prompt'; "
                    f"columns: {', '.join(columns)}"
                )
        if task.target is not None and "{" not in task.target and task.target in columns:
            raise ConfigError(f"task.target: did you mean the column, '{{{{ {task.target} }}}}'? (it is a template)")
        self._target = Template(task.target, "task.target", columns) if task.target is not None else None

    @property
    def columns(self) -> set[str]:
        """The columns that prompts are made from: their length tells the expected work."""
        if self._column:
            return {self._column}
        templates = [template for _, template in self._messages] + ([self._prompt] if self._prompt else [])
        return set().union(*(template.columns for template in templates))

    def prompt(self, row: Mapping[str, Any]) -> Prompt:
        """The prompt of a row: text, or a chat. Raises what the template raises."""
        if self._column:
            return _checked(row[self._column])
        if self._prompt:
            return self._prompt.text(row)
        return [{"role": role, "content": template.text(row)} for role, template in self._messages]

    def target(self, row: Mapping[str, Any]) -> Target:
        """The right answer of a row, or several; None where the task has no target."""
        value = self._target.value(row) if self._target else None
        if value is None:
            return None
        return [str(item) for item in value] if isinstance(value, list | tuple) else str(value)


def _checked(value: Any) -> Prompt:
    if isinstance(value, str):
        return value
    if (
        isinstance(value, list)
        and value
        and all(isinstance(m, dict) and {"role", "content"} <= m.keys() for m in value)
    ):
        chat: Chat = [{"role": str(message["role"]), "content": str(message["content"])} for message in value]
        return chat
    raise ValueError(f"neither a text nor a chat: {value!r}"[:300])


def sample_seed(run_seed: int, sample_id: str) -> int:
    """A sample's own seed: the same for any number of ranks and any interruptions."""
    return int.from_bytes(hashlib.sha256(f"{run_seed}\0{sample_id}".encode(errors="surrogatepass")).digest()[:7], "big")
