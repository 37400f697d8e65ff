"""Prompts and targets from rows, by strict jinja2 templates."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

from hpcjobs.config import TaskConfig
from hpcjobs.errors import ConfigError
from hpcjobs.requests import Chat, Pair, Prompt, Request, Row, Target, template_values, turns_like
from hpcjobs.run_folder.inputs import row_index, user_row
from hpcjobs.tasks.chats import TEMPLATE_COLUMNS, prompt_of
from hpcjobs.tasks.few_shot import Pool
from hpcjobs.tasks.seeds import sample_seed
from hpcjobs.tasks.template import Template


class ExampleError(ValueError):
    """A few-shot example cannot be shown: it is to blame, and not the row that is asked."""


@contextlib.contextmanager
def _blaming(example: Row) -> Iterator[None]:
    """Whatever is raised in the block names the example by its id."""
    try:
        yield
    except TimeoutError:
        raise
    except Exception as error:  # a template may raise anything
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ExampleError(f"the example of task.few_shot with id {example.get('id')!r}: {kind}{error}") from None


class _AnyColumn(list[str]):
    """The columns of an empty data set: every name counts as present."""

    def __contains__(self, name: object) -> bool:
        return True


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
            if not isinstance(prompt, str):
                raise ValueError(f"task.type perplexity scores a text, and column {self._column!r} has a chat")
            return Request(index=row_index(row), id=sample, prompt=prompt, seed=seed, task="perplexity")
        repeats, truncate = self._task.repeats, self._task.truncate
        return Request(index=row_index(row), id=sample, prompt=prompt, seed=seed, repeats=repeats, truncate=truncate)

    def prompt(self, row: Row, sample: str = "") -> Prompt:
        """The prompt of a row, as text or chat: description, few-shot examples, the row itself.

        `sample` is the row's id, which seeds its examples and excludes itself from them. In a chat the description
        joins the system turn that it begins with, and the examples come behind that one; other turns stay where they
        are.
        """
        turn = self._turn(row)
        if self._task.type == "perplexity" or not (self._pool or self._description):
            return turn
        lead = self._description.text(row) if self._description else ""
        shown = self._pool.examples(row, sample, self.asked) if self._pool else []
        if isinstance(turn, str):
            shots = [self._text_example(one) for one in shown]
            return lead + self._task.few_shot.separator.join([*shots, turn])
        place = _leading_system(turn)
        solved = [message for one in shown for message in self._chat_example(one, turn)]
        return turns_like(turn, [*_described(lead, turn[:place]), *solved, *turn[place:]])

    def _turn(self, row: Row) -> Prompt:
        if self._column:
            value = row[self._column]  # of perplexity any text is one, a chat's JSON too
            return value if self._task.type == "perplexity" and isinstance(value, str) else prompt_of(row, self._column)
        if self._prompt:
            return self._prompt.text(row)
        return [{"role": role, "content": template.text(row)} for role, template in self._messages]

    def _text_example(self, row: Row) -> str:
        """A few-shot example before a text."""
        with _blaming(row):
            shot, answer = self._example(row)
            if not isinstance(shot, str):
                raise ValueError("it is a chat, and the row a text")
            return f"{shot}{self._delimiter}{answer}"

    def _chat_example(self, row: Row, asked: Chat) -> Chat:
        """A few-shot example before the turns of a chat."""
        with _blaming(row):
            return _solved(*self._example(row), asked)

    def _example(self, row: Row) -> tuple[Prompt, str]:
        """A few-shot example: its prompt, and the first correct answer."""
        try:
            first = first_answer(self.target(row))
        except ValueError as error:
            raise ValueError(f"it has no answer: {error}") from None
        if first is None:
            raise ValueError("it has no answer: task.target gives null for it")
        return self._turn(row), self.options(row)[first] if isinstance(first, int) else str(first)

    def options(self, row: Row) -> list[str]:
        """The options of a multiple-choice row, as texts."""
        if len(self._options) == 1 and isinstance(self._task.choices, str):
            return _texts(self._options[0], self._options[0].value(row), "options")
        return [template.text(row) for template in self._options]

    def target(self, row: Row) -> Target:
        """The target of a row: one or several texts, or option numbers for choice; None without `task.target`.

        For perplexity it is the text itself.
        """
        if self._task.type == "perplexity":
            turn = self._turn(row)
            return turn if isinstance(turn, str) else None
        value = self._target.value(row) if self._target else None
        if self._target is None or value is None:
            return None
        if not isinstance(value, list | tuple):
            _check_plain(self._target, value, "targets")
            return option_number(value, self.options(row)) if self._task.type == "choice" else str(value)
        texts = _texts(self._target, value, "targets")
        if self._task.type == "choice":
            options = self.options(row)
            return [option_number(one, options) for one in value]
        return texts


def _texts(template: Template, value: object, what: str) -> list[str]:
    """The items of a list as texts. Raises a ValueError for what is no list, has no items, or some without a text."""
    if not isinstance(value, list | tuple):
        written = isinstance(value, str) and value.lstrip().startswith("[") and template.lone
        hint = f": if it is JSON, set data.types: {{{', '.join(template.columns)}: json}}" if written else ""
        raise ValueError(f"{template} gives {value!r}"[:200] + f", not a list of {what}{hint}")
    if not value:
        raise ValueError(f"{template} gives an empty list of {what}")
    for item in value:
        _check_plain(template, item, what)
    return [str(item) for item in value]


def _check_plain(template: Template, value: object, what: str) -> None:
    """Raise a ValueError for what only Python has a text for, which no answer can be meant to equal."""
    if value is None or isinstance(value, list | tuple | Mapping | bytes):
        raise ValueError(f"{template} gives {value!r}"[:200] + f" among its {what}, which is no text")


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
    if task.type == "perplexity" and task.description:
        raise ConfigError("task.description has no meaning for task.type perplexity: put it into task.prompt")
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


def _leading_system(chat: Chat) -> int:
    """How many system turns a chat begins with."""
    return next((place for place, turn in enumerate(chat) if turn["role"] != "system"), len(chat))


def _described(lead: str, system: Chat) -> Chat:
    """The first system turns, with the description before the first one's words, because templates take one turn.

    An empty line comes between them unless there is white space (lm-evaluation-harness 0.4.13, `maybe_delimit`).
    """
    if not lead or not system:
        return [{"role": "system", "content": lead}] if lead else system
    words = system[0].get("content") or ""
    between = "" if not words or lead[-1].isspace() or words[0].isspace() else "\n\n"
    return [{**system[0], "content": f"{lead}{between}{words}"}, *system[1:]]


def _solved(shot: Prompt, answer: str, asked: Chat) -> Chat:
    """A few-shot example as turns of a chat, without the system turns that it begins with.

    Raises a ValueError if it needs other tools or documents than the chat that is asked: there is one place for them.
    """
    if isinstance(shot, str):
        raise ValueError("it is a text, and the row a chat")
    for name in TEMPLATE_COLUMNS:
        if (own := template_values(shot).get(name)) and own != template_values(asked).get(name):
            raise ValueError(f"it has other {name} than the row, and a chat has them once")
    return [*shot[_leading_system(shot) :], {"role": "assistant", "content": answer}]
