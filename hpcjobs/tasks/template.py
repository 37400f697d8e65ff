"""Strict jinja2 templates over the columns of a row."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jinja2
import jinja2.meta
from jinja2 import nodes
from jinja2.environment import TemplateExpression
from jinja2.sandbox import SandboxedEnvironment

from hpcjobs.errors import ConfigError, did_you_mean
from hpcjobs.plugins import timed
from hpcjobs.requests import Row
from hpcjobs.tasks.written_columns import lone_column, opened_columns, written_columns

_python_texts: ContextVar[set[str] | None] = ContextVar("python_texts", default=None)


@contextmanager
def python_texts() -> Iterator[set[str]]:
    """Collects which kinds of values templates write as Python does, as `None` or `['a']`, while it is open."""
    seen = set[str]()
    token = _python_texts.set(seen)
    try:
        yield seen
    finally:
        _python_texts.reset(token)


def _finalized(value: object) -> Any:
    """What an expression of a template writes. Raises what `_with_text` raises."""
    if (seen := _python_texts.get()) is not None and (value is None or isinstance(value, list | tuple | Mapping)):
        seen.add("null" if value is None else "a list or object")
    return _with_text(value)


def _with_text(value: object) -> Any:
    """The value. Raises a TypeError for what has no text of its own.

    jinja2 would write Python's name of it: `{{ a.items }}` is the method, though `a` has a key `items`.
    """
    if isinstance(value, jinja2.Undefined):
        return value
    if callable(value):
        name = getattr(value, "__name__", type(value).__name__)
        raise TypeError(f"the template writes the function {name!r}: for the key of that name write ['{name}']")
    if isinstance(value, Iterator):
        raise TypeError("the template writes a filter's result that is no list yet: add '| list', or '| join'")
    if isinstance(value, bytes | bytearray | memoryview):
        raise TypeError("the template writes bytes, not a text: add '.decode()'")
    return value


_environment = SandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, finalize=_finalized)
# jinja2 counts no name of a global as one of the context's; a column may have such a name.
_bare = SandboxedEnvironment()
_bare.globals.clear()
# Words that are no names, whatever the columns are called.
_CONSTANTS = {"none": None, "None": None, "true": True, "True": True, "false": False, "False": False}
_RESERVED = {"and", "else", "if", "in", "is", "not", "or"}


# A text longer than any context: a template that makes it is wrong, and all of its rows would be held in memory.
MOST_CHARACTERS = 1 << 26


class Template:
    """A jinja2 template over a row. Raises a ConfigError if it does not parse or names a missing column."""

    def __init__(self, text: str, key: str, columns: Sequence[str]) -> None:
        self._key = key
        try:
            with timed(key):  # what is constant is computed here
                parsed = _environment.parse(text)
                names = jinja2.meta.find_undeclared_variables(_bare.parse(text))
                self._template, self._expression = _environment.from_string(text), _lone_expression(parsed)
        except (MemoryError, RecursionError, TimeoutError) as error:
            raise ConfigError(f"{key}: cannot be compiled: {type(error).__name__}: {error}") from None
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(
                f"{key}: not a jinja2 template: {error.message} (its line {error.lineno}){_unnameable(text, columns)}"
            ) from None
        _check_taken(parsed, key, columns)
        for name in sorted(name for name in names - _called(parsed) if name not in columns):
            raise ConfigError(
                f"{key}: the template names column {name!r}, which the data set does not have"
                f"{did_you_mean(name, columns)}; its columns: {', '.join(columns) or 'none'}"
                f"{_unnameable(text, columns)}"
            )
        self.columns = names & set(columns)
        self.written, self.lone = written_columns(parsed) & self.columns, lone_column(parsed) is not None
        self.opened = opened_columns(parsed) & self.columns

    def __str__(self) -> str:
        """The key, and the columns in it, for messages."""
        word = "column" if len(self.columns) == 1 else "columns"
        return f"{self._key} ({word} {', '.join(map(repr, sorted(self.columns)))})" if self.columns else self._key

    def text(self, row: Row) -> str:
        """The rendered text."""
        with timed(self._key):
            text = self._template.render(row)
        if len(text) > MOST_CHARACTERS:
            raise ValueError(f"{self._key} gives {len(text):,} characters; the most is {MOST_CHARACTERS:,}")
        return text

    def value(self, row: Row) -> object:
        """The value of a single `{{ expression }}`, with lists as lists; otherwise the rendered text."""
        if self._expression is None:
            return self.text(row)
        with timed(self._key):
            value = self._expression(dict(row))
        if isinstance(value, jinja2.Undefined):
            raise jinja2.UndefinedError(f"{self._key} is undefined for this row")
        if isinstance(value, Iterable) and not isinstance(value, str | bytes | list | tuple | Mapping):
            return list(value)  # of a filter such as map
        return _with_text(value)


def _check_taken(parsed: nodes.Template, key: str, columns: Sequence[str]) -> None:
    """Raise a ConfigError for a column that a template names by a word which means something else to jinja2."""
    named = {node.name for node in parsed.find_all(nodes.Name) if node.ctx == "load"}
    constants = {id(part.value) for output in parsed.find_all(nodes.Output) for part in _constants(output)}
    taken = [name for name, value in _CONSTANTS.items() if id(value) in constants] + [*({"self"} & named)]
    for name in taken:
        if name in list(columns):
            raise ConfigError(f"{key}: {name} is a word of jinja2's own, and never the column of that name: rename it")
    if "self" in named - _called(parsed):
        raise ConfigError(f"{key}: the template writes self, which is jinja2's own and no column")


def _constants(output: nodes.Output) -> Iterator[nodes.Const]:
    return (part for part in output.nodes if isinstance(part, nodes.Const))


def _called(parsed: nodes.Template) -> set[str]:
    """The names of jinja2's functions, such as `range`, that a template only calls or looks into."""
    used = {id(call.node) for call in parsed.find_all(nodes.Call)}
    used |= {id(look.node) for look in parsed.find_all(nodes.Getattr)}
    plain = {node.name for node in parsed.find_all(nodes.Name) if node.ctx == "load" and id(node) not in used}
    return {*_environment.globals, "self"} - plain


def _unnameable(text: str, columns: Collection[str]) -> str:
    """A hint at the columns that a text seems to mean and that no template can name."""
    odd = [name for name in columns if name in text and (not name.isidentifier() or name in _RESERVED)]
    return f"; no template can name a column such as {odd[0]!r}: rename it in the data" if odd else ""


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
