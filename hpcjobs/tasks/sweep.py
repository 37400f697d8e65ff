"""SweepTask: a point of a sweep as the words and the environment of a program."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence

from hpcjobs.metrics import Score
from hpcjobs.requests import Completion, Request, Row
from hpcjobs.run_folder.inputs import user_columns, user_row
from hpcjobs.tasks.template import Template

# What begins a part of a template.
_TEMPLATE = re.compile(r"\{[{%#]")


class SweepTask:
    """Renders `{{ name }}` in arguments and in values of cluster.env, from the columns of the points.

    A request's prompt is JSON: `argv`, `env` and the `point`. Raises a ConfigError for a name that is no column.
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], columns: Iterable[str]) -> None:
        given = list(columns)
        names = user_columns(given)
        self._ours = {name for name in ("index", "id") if f"source_{name}" not in given}
        self._argv = [Template(word, f"argument {number}", names) for number, word in enumerate(argv)]
        rendered = {name: text for name, text in env.items() if _TEMPLATE.search(text)}
        self._env = {name: Template(text, f"cluster.env.{name}", names) for name, text in rendered.items()}
        self.columns = {name for one in (*self._argv, *self._env.values()) for name in one.columns}

    def words(self, row: Row) -> tuple[list[str], dict[str, str]]:
        """(arguments, environment) of a point."""
        seen = user_row(row)
        return [word.text(seen) for word in self._argv], {name: text.text(seen) for name, text in self._env.items()}

    def request(self, row: Row) -> Request:
        """The point as a request."""
        argv, env = self.words(row)
        point = {name: value for name, value in user_row(row).items() if name not in self._ours}
        values = {"argv": argv, "env": env, "point": point}
        return Request(index=_number(row["index"]), id=str(row["id"]), prompt=json.dumps(values, default=str))

    def judge(self, answer: Completion, row: Row) -> dict[str, Score]:
        """No scores."""
        return {}

    def failed(self, row: Row) -> dict[str, Score]:
        """No scores."""
        return {}


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value
