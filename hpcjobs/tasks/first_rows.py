"""What the first rows of a data set come to under a task's templates, before anything is queued."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator

import pyarrow as pa

from hpcjobs.requests import Prompt, Row, Target
from hpcjobs.run_folder.inputs import user_row
from hpcjobs.run_folder.json_columns import python_rows
from hpcjobs.tasks.chats import unused_columns
from hpcjobs.tasks.prompts import Prompts
from hpcjobs.tasks.template import python_texts

MOST_LOOKED_AT = 1000


class FirstRows:
    """Up to 1,000 rows: `targets` by number, and `notes` on rows that are not asked or scored as one would think."""

    def __init__(self, prompts: Prompts, table: pa.Table) -> None:
        self.targets: list[tuple[int, Target]] = []
        self._prompts, self._of = prompts, of_rows(len(table))
        self._found: dict[tuple[str, str], list[int]] = {}
        self._failed: list[str] = []
        for number, stored in enumerate(python_rows(table.slice(0, MOST_LOOKED_AT))):
            row = user_row(stored)
            try:
                with python_texts() as kinds:
                    prompt, target = prompts.request(stored, 0).prompt, prompts.target(row)
            except Exception as error:  # a template may raise anything
                self._failed.append(f"row {number} (id {stored['id']!r}): {error}")
                continue
            self.targets.append((number, target))
            for found in (*self._of_prompt(row, prompt), *self._of_target(target), *self._of_texts(row, kinds)):
                self._found.setdefault(found, []).append(number)

    def _of_prompt(self, row: Row, prompt: Prompt) -> Iterator[tuple[str, str]]:
        if not isinstance(prompt, str) and prompt[-1]["role"] == "assistant":
            yield (
                "the chat ends with the assistant's turn",
                "the model sees it and is asked for one more; if it is the answer, take it out of the chat",
            )
        for name in unused_columns(row, prompt):
            if all(name not in template.columns for template in self._prompts.templates.values()):
                then = "only a chat from the column 'messages' or 'prompt' takes it to the chat template"
                yield f"column {name!r} is not used", then

    def _of_target(self, target: Target) -> Iterator[tuple[str, str]]:
        template = self._prompts.templates.get("task.target")
        if template is None:
            return
        if target is None and not template.lone:  # else `nulls` tells it, of all rows
            yield "task.target is null", "it has no target"
        how, value = _list_as_text(target) if isinstance(target, str) else ("", None)
        if template.lone and isinstance(value, list) and value and all(isinstance(one, str) for one in value):
            (name,) = template.columns
            yield f"the target is a list, but as {how} text", f"no list of right answers until you {_then(name, how)}"

    def _of_texts(self, row: Row, kinds: set[str]) -> Iterator[tuple[str, str]]:
        templates = list(self._prompts.templates.values())
        for name in sorted({name for one in templates for name in one.opened}):
            how, _ = _list_as_text(found) if isinstance(found := row[name], str) else ("", None)
            if how:
                what = f"column {name!r} is a list or object, but as {how} text"
                yield what, f"a template takes its characters, not its items, until you {_then(name, how)}"
        told = {"null" for one in templates for name in one.written if row[name] is None}  # by `nulls`
        for kind in sorted(kinds - told):
            then = "use a part of it, or a filter (join, tojson, default)"
            yield f"the templates write {kind} as Python does", then

    @property
    def notes(self) -> list[str]:
        """The notes, one for each kind of row."""
        notes = [
            f"{what} in {len(rows)} {self._of}, the first is row {rows[0]}: {then}"
            for (what, then), rows in self._found.items()
        ]
        if self._failed:
            notes.append(f"{len(self._failed)} {self._of} end in an error; the first is {self._failed[0]}")
        return notes


def of_rows(rows: int) -> str:
    """'of 5 rows', or of the first ones where more are not looked at."""
    return f"of {rows} rows" if rows <= MOST_LOOKED_AT else f"of the first {MOST_LOOKED_AT:,} rows"


def _then(name: str, how: str) -> str:
    return f"set data.types: {{{name}: json}}" if how == "JSON" else "write the file again with JSON in it"


def _list_as_text(text: str) -> tuple[str, object]:
    """Whose text of a list or an object it is, JSON's or Python's, and its value; ('', None) for others."""
    if text.lstrip()[:1] in ("[", "{"):
        for how, read in (("JSON", json.loads), ("Python's", ast.literal_eval)):
            try:
                return how, read(text.strip())
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    return "", None
