"""The table of docs/lm-eval-tasks.md: what was compared, and how it came out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tests.reference.lm_eval_library.bench import Case, Outcome

PAGE = Path(__file__).parents[3] / "docs" / "lm-eval-tasks.md"
_HEAD = "| what | outcome | count | which |"
_TABLE = re.compile(re.escape(_HEAD) + r".*", re.DOTALL)


def table(found: Iterable[tuple[Case, Outcome]]) -> str:
    """A line for each kind and outcome: how many, and which."""
    lines = dict[tuple[str, str], list[str]]()
    for case, outcome in found:
        lines.setdefault((_kind(case), _told(case, outcome)), []).append(name_of(case))
    rows = [f"| {kind} | {told} | {len(names)} | {', '.join(names)} |" for (kind, told), names in lines.items()]
    return "\n".join([_HEAD, "|---|---|---|---|", *rows, ""])


def _kind(case: Case) -> str:
    if case.include is not None:
        return "keys of a task's YAML"
    return "options of a run" if case.what else "tasks"


def name_of(case: Case) -> str:
    """A library's task by its name; an option by what it is, with the task if that is the library's."""
    if case.include is not None:
        return case.what if not case.what.startswith("as a group") else f"group {case.task}"
    return f"`{case.task}` {case.what}".strip()


def _told(case: Case, outcome: Outcome) -> str:
    if outcome.differences:
        return "**differs**"
    if "lm_eval cannot load" in outcome.refused:
        return "refused: lm_eval cannot load it here either, for want of packages"
    return f"refused: {case.refused}" if case.refused else "equal"


def write(found: Iterable[tuple[Case, Outcome]]) -> None:
    """Write the table into the page."""
    made = table(found)
    PAGE.write_text(_TABLE.sub(lambda match: made, PAGE.read_text()))


def named() -> set[str]:
    """The tasks and options that the page names."""
    match = _TABLE.search(PAGE.read_text())
    assert match is not None
    rows = [row.split(" | ") for row in match.group().splitlines()[2:]]
    return {name for row in rows for name in row[3].removesuffix(" |").split(", ")}
