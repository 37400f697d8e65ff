"""Prompts and targets from rows, by strict jinja2 templates."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import jinja2
import jinja2.meta
from jinja2 import nodes
from jinja2.environment import TemplateExpression
from jinja2.sandbox import SandboxedEnvironment

from hpcjobs.config import TaskConfig
from hpcjobs.errors import ConfigError, did_you_mean
from hpcjobs.requests import Chat, Pair, Prompt, Request, Row, Target, ToolChat, Turn, turns_like
from hpcjobs.run_folder.inputs import row_index, user_row
from hpcjobs.tasks.few_shot import Pool
from hpcjobs.tasks.seeds import sample_seed
from hpcjobs.tasks.written_columns import lone_column, written_columns

# Columns that go to the chat template beside a chat of the row's own.
TEMPLATE_COLUMNS = ("tools", "documents")
_environment = SandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)


class _AnyColumn(list[str]):
    """The columns of an empty data set: every name counts as present."""

    def __contains__(self, name: object) -> bool:
        return True


class Template:
    """A jinja2 template over a row. Raises a ConfigError if it does not parse or names a missing column."""

    def __init__(self, text: str, key: str, columns: Sequence[str]) -> None:
        self._key = key
        try:
            parsed = _environment.parse(text)
            names = jinja2.meta.find_undeclared_variables(parsed)
            self._template = _environment.from_string(text)
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(f"{key}: not a jinja2 template: {error.message} (its line {error.lineno})") from None
        for name in sorted(name for name in names - set(_environment.globals) if name not in columns):
            raise ConfigError(
                f"{key}: the template names column {name!r}, which the data set does not have"
                f"{did_you_mean(name, columns)}; its columns: {', '.join(columns) or 'none'}"
            )
        self.columns = names & set(columns)
        self.written, self.lone = written_columns(parsed) & self.columns, lone_column(parsed) is not None
        self._expression = _lone_expression(parsed)

    def text(self, row: Row) -> str:
        """The rendered text."""
        return self._template.render(row)

    def value(self, row: Row) -> object:
        """The value of a single `{{ expression }}`, with lists as lists; otherwise the rendered text."""
        if self._expression is None:
            return self.text(row)
        value = self._expression(**row)
        if isinstance(value, jinja2.Undefined):
            raise jinja2.UndefinedError(f"{self._key} is undefined for this row")
        if isinstance(value, Iterable) and not isinstance(value, str | bytes | list | tuple | Mapping):
            return list(value)  # of a filter such as map
        return value


def _lone_expression(parsed: nodes.Template) -> TemplateExpression | None:
    """The expression of a template that is a single `{{ }}`, apart from whitespace; else None.

    As `Environment.compile_expression`, but from jinja's own parse: the dash of `{{- a }}` is not a minus.
    """
    parts = [part for node in parsed.body if isinstance(node, nodes.Output) for part in node.nodes]
    found = [part for part in parts if not (isinstance(part, nodes.TemplateData) and not part.data.strip())]
    if len(found) != 1 or isinstance(found[0], nodes.TemplateData) or len(parsed.body) != 1:
        return None
    result = nodes.Assign(nodes.Name("result", "store", lineno=1), found[0], lineno=1)
    compiled = _environment.from_string(nodes.Template([result], lineno=1))
    return TemplateExpression(compiled, undefined_to_none=False)


class Prompts:
    """The prompts, options and targets of a task, over rows with the given columns.

    `pool` has the rows for few-shot examples, if the task uses any. Raises a ConfigError.
    """

    def __init__(self, task: TaskConfig, columns: Iterable[str], pool: Pool | None = None) -> None:
        columns = list(columns)
        if not set(columns) - {"index", "id"}:
            columns = _AnyColumn()  # an empty file names no columns, and has no row to miss one
        check_task(task)
        self._task, self._pool = task, pool
        self._column = None if task.prompt is not None or task.messages else _prompt_column(task, columns)
        self._beside = [name for name in TEMPLATE_COLUMNS if name in list(columns)] if self._column else []
        self._prompt = _optional(task.prompt, "task.prompt", columns)
        self._messages = [
            (message.role, Template(message.content, f"task.messages.{number}.content", columns))
            for number, message in enumerate(task.messages or ())
        ]
        if task.target is not None and "{" not in task.target and task.target in columns:
            raise ConfigError(f"task.target: did you mean the column, '{{{{ {task.target} }}}}'? (it is a template)")
        self._target = _optional(task.target, "task.target", columns)
        self._description = _optional(task.description, "task.description", columns)
        self._options = _option_templates(task.choices, columns)
        self._delimiter = ("" if self._messages else " ") if task.delimiter is None else task.delimiter

    @property
    def columns(self) -> set[str]:
        """The columns in the prompts; their length predicts the work of a sample."""
        if self._column:
            return {self._column, *self._beside}
        templates = [template for _, template in self._messages] + ([self._prompt] if self._prompt else [])
        return set().union(*(template.columns for template in [*templates, *self._options]))

    @cached_property
    def asked(self) -> set[str]:
        """The columns in prompt, options and target: rows with the same values in them are the same to this task.

        Not the number and the id, which another copy of the rows may give otherwise.
        """
        columns = self.columns | (self._target.columns if self._target else set())
        return columns - {"index", "id"} or columns

    @property
    def templates(self) -> dict[str, Template]:
        """The templates of prompt, options and target by their key."""
        named = {f"task.messages.{number}": template for number, (_, template) in enumerate(self._messages)}
        named |= {"task.prompt": self._prompt} if self._prompt else {}
        named |= {"task.target": self._target} if self._target else {}
        several = len(self._options) > 1 or not isinstance(self._task.choices, str)
        return named | {
            f"task.choices.{number}" if several else "task.choices": template
            for number, template in enumerate(self._options)
        }

    def request(self, row: Row, run_seed: int) -> Request:
        """The request of a row that has `index` and `id`. Raises what a template raises."""
        values, sample = user_row(row), str(row["id"])
        prompt, seed, kind = self.prompt(values, sample), sample_seed(run_seed, sample), self._task.type
        if kind == "choice":
            options = self.options(values)
            pairs = tuple(Pair(prompt, f"{self._delimiter}{option}") for option in options)
            return Request(
                index=row_index(row),
                id=sample,
                prompt=prompt,
                seed=seed,
                task="choice",
                options=tuple(options),
                pairs=pairs,
                truncate=self._task.truncate,
            )
        if kind == "perplexity":
            return Request(index=row_index(row), id=sample, prompt=prompt, seed=seed, task="perplexity")
        repeats, truncate = self._task.repeats, self._task.truncate
        return Request(index=row_index(row), id=sample, prompt=prompt, seed=seed, repeats=repeats, truncate=truncate)

    def prompt(self, row: Row, sample: str = "") -> Prompt:
        """The prompt of a row, as text or chat: description, few-shot examples, the row itself.

        `sample` is the row's id, which seeds its examples and excludes itself from them. In a chat, description and
        system messages are joined into one system message, because many chat templates accept only one.
        """
        turn = self._turn(row)
        if self._task.type == "perplexity" or not (self._pool or self._description):
            return turn
        lead = self._description.text(row) if self._description else ""
        shown = self._pool.examples(row, sample, self.asked) if self._pool else []
        examples = [self._example(one) for one in shown]
        if isinstance(turn, str):
            shots = [f"{shot}{self._delimiter}{answer}" for shot, answer in examples]
            return lead + self._task.few_shot.separator.join([*shots, turn])
        system_texts = [lead.strip(), *(message["content"] for message in turn if message["role"] == "system")]
        system = [{"role": "system", "content": "\n\n".join(filter(None, system_texts))}] if any(system_texts) else []
        solved = [message for shot, answer in examples for message in _solved(shot, answer)]
        return turns_like(turn, [*system, *solved, *(message for message in turn if message["role"] != "system")])

    def _turn(self, row: Row) -> Prompt:
        if self._column:
            return prompt_of(row, self._column)
        if self._prompt:
            return self._prompt.text(row)
        return [{"role": role, "content": template.text(row)} for role, template in self._messages]

    def _example(self, row: Row) -> tuple[Prompt, str]:
        """A few-shot example: its prompt, and the first correct answer."""
        first = first_answer(self.target(row))
        if first is None:
            raise ValueError("an example of task.few_shot has no answer: set task.target")
        return self._turn(row), self.options(row)[first] if isinstance(first, int) else str(first)

    def options(self, row: Row) -> list[str]:
        """The options of a multiple-choice row, as texts."""
        if len(self._options) == 1 and isinstance(self._task.choices, str):
            value = self._options[0].value(row)
            if not isinstance(value, list | tuple):
                raise ValueError(f"task.choices gives {value!r}"[:200] + ", not a list of options")
            return [str(option) for option in value]
        return [template.text(row) for template in self._options]

    def target(self, row: Row) -> Target:
        """The target of a row: one or several texts, or option numbers for choice; None without `task.target`.

        For perplexity it is the text itself.
        """
        if self._task.type == "perplexity":
            turn = self._turn(row)
            return turn if isinstance(turn, str) else None
        value = self._target.value(row) if self._target else None
        if value is None:
            return None
        if self._task.type == "choice":
            options = self.options(row)
            if isinstance(value, list | tuple):
                return [option_number(one, options) for one in value]
            return option_number(value, options)
        return [str(item) for item in value] if isinstance(value, list | tuple) else str(value)


def first_answer(target: Target) -> str | int | None:
    """The first of several correct answers, which is shown or trained on; None if there is none."""
    if isinstance(target, list):
        return target[0] if target else None
    return target


def check_task(task: TaskConfig) -> None:
    """Raise a ConfigError if keys of the task contradict each other or its type."""
    if task.prompt is not None and task.messages:
        raise ConfigError("task.prompt and task.messages are both set: a task has one of them")
    if task.type == "choice" and not task.choices:
        raise ConfigError('task.choices is not set: the options of a row, such as "{{ choices }}" or [A, B, C, D]')
    if task.type != "choice" and task.choices:
        raise ConfigError(f"task.choices is for task.type choice, and task.type is {task.type}")
    if task.type == "perplexity" and task.messages:
        raise ConfigError("task.messages is a chat, and task.type perplexity scores a text: set task.prompt")
    if task.type == "perplexity" and task.truncate:
        raise ConfigError("task.truncate has no meaning for task.type perplexity: all of a text is scored, in windows")
    if task.type == "perplexity" and task.few_shot.k:
        raise ConfigError("task.few_shot has no meaning for task.type perplexity")
    if task.repeats > 1 and task.type != "generate":
        raise ConfigError(f"task.repeats asks for several answers, and task.type {task.type} gives none")
    if task.few_shot.k and task.target is None:
        raise ConfigError("task.few_shot needs task.target: an example is shown with its answer")


def _prompt_column(task: TaskConfig, columns: Sequence[str]) -> str:
    """The column with the prompt, for a task without templates."""
    names = ("text", "prompt") if task.type == "perplexity" else ("messages", "prompt")
    for name in names:
        if name in columns:
            return name
    raise ConfigError(
        f"nothing to ask: set task.messages or task.prompt, or bring a column {' or '.join(map(repr, names))}; "
        f"columns: {', '.join(columns)}"
    )


def _optional(text: str | None, key: str, columns: Sequence[str]) -> Template | None:
    return None if text is None else Template(text, key, columns)


def _option_templates(choices: str | tuple[str, ...] | None, columns: Sequence[str]) -> list[Template]:
    if choices is None or isinstance(choices, str):
        return [Template(choices, "task.choices", columns)] if choices else []
    return [Template(choice, f"task.choices.{number}", columns) for number, choice in enumerate(choices)]


def option_number(value: object, options: Sequence[str]) -> int:
    """The option that a target means: a number counts from 0; a text is an option, else its letter, else its number.

    Raises a ValueError if it is none of them.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif (text := str(value)) in options:
        return options.index(text)
    elif len(text.strip()) == 1 and text.strip().isascii() and text.strip().isalpha():
        number = ord(text.strip().upper()) - ord("A")
    elif text.strip().isascii() and text.strip().isdigit():
        number = int(text)
    else:
        number = -1
    if not 0 <= number < len(options):
        raise ValueError(f"target {value!r} is none of the {len(options)} options: {list(options)}"[:500])
    return number


def _solved(prompt: Prompt, answer: str) -> Chat:
    """A few-shot example as turns of a chat, without its system message."""
    turns = [message for message in prompt if message["role"] != "system"] if not isinstance(prompt, str) else []
    return [*turns, {"role": "assistant", "content": answer}]


def chat_or_text(value: object) -> Prompt:
    """A prompt from a column: a text, or a chat whose turns have role and content. Raises a ValueError for others.

    Other keys of a turn (`tool_calls`, `name`...) are passed to the chat template, and so is content that is null.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        return [_turn_of(turn, number) for number, turn in enumerate(value)]
    raise ValueError(f"neither a text nor a chat: {value!r}"[:300])


def prompt_of(row: Row, column: str) -> Prompt:
    """`chat_or_text` of a column. A chat has the row's `tools` and `documents`, as transformers' templates take them.

    They are lists, or their JSON as a text (TRL writes tools so). Raises a ValueError for others.
    """
    prompt = chat_or_text(row[column])
    if isinstance(prompt, str):
        return prompt
    values = {name: _listed(row[name], name) for name in TEMPLATE_COLUMNS if row.get(name) is not None}
    return ToolChat(prompt, values) if values else prompt


def _listed(value: object, name: str) -> list[object]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError(f"column {name!r} of a row with a chat is no JSON: {value!r}"[:300]) from None
    if not isinstance(value, list):
        raise ValueError(f"column {name!r} of a row with a chat is no list: {value!r}"[:300])
    return value


def _turn_of(turn: Turn, number: int) -> Turn:
    """A turn, with the text parts of its content joined. Raises a ValueError for parts that are not text."""
    if not isinstance(turn.get("role"), str) or ("content" not in turn and not turn.get("tool_calls")):
        raise ValueError(f"turn {number} of the chat has no role and content: {turn!r}"[:300])
    if "content" not in turn:  # as OpenAI's clients write a turn that only calls tools
        return dict(turn)
    content = turn["content"]
    if isinstance(content, list):
        content = "".join(_text_part(part, number) for part in content)
    if content is not None and not isinstance(content, str):
        raise ValueError(f"turn {number} of the chat has content that is neither a text nor parts: {content!r}"[:300])
    return {**turn, "content": content}


def _text_part(part: Any, number: int) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, dict) else part
    raise ValueError(f"turn {number} of the chat has a part of type {kind!r}: only parts of type text are read"[:300])
