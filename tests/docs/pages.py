"""A page as what stands in its fenced blocks: files, commands, and the output that is shown of them.

The convention, which CONTRIBUTING tells to authors: a fence under a line that ends with a file's name in backticks and
a colon is that file; the lines of a `console` fence after `$ ` are commands, the others their output; a `sh` fence has
commands alone. HTML comments, which GitHub does not show, say the rest (`MARKERS`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# What a page may say in `<!-- KIND: ... -->`: of itself, and of the block below.
MARKERS = {
    "session": "words among `slurm` (on the test cluster) and `real` (the folder `real` of tools/fetch_real.py)",
    "not run": "why the block below is not run",
    "wait": "what a reader waits for: `RUN has N samples` or `ranks`, `RUN is merged`, `no job is left`",
    "last digit": "why the last digit of the figures below depends on the machine",
}
TYPED = ("console", "sh")
COMMENT = re.compile(r"^<!-- (.*?) -->$")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"`([^`\s]+\.\w+)`:$")
OMITTED = "..."


class PageError(Exception):
    """A page does not keep to the convention; the message has page and line."""


@dataclass
class Command:
    """A command; `output` is None where the page shows none (a `sh` fence)."""

    line: int
    text: str
    output: list[str] | None


@dataclass
class Block:
    """A fence: its language, its text, and the markers above it."""

    line: int
    language: str
    text: str
    name: str | None
    markers: dict[str, str] = field(default_factory=dict)

    @property
    def runs(self) -> bool:
        return "not run" not in self.markers

    @property
    def commands(self) -> list[Command]:
        """The commands of a `console` or `sh` fence; none of any other."""
        lines = list(enumerate(self.text.splitlines(), self.line + 1))
        if self.language == "console":
            return _dialog(lines)
        if self.language == "sh":
            return _script(lines)
        return []


@dataclass
class Page:
    """A page's blocks in order, and the words of its session."""

    path: Path
    session: frozenset[str]
    blocks: list[Block]

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def commands(self) -> list[Command]:
        """All commands, of blocks that are not run too."""
        return [command for block in self.blocks for command in block.commands]


def read_page(path: Path) -> Page:
    """Raises PageError for a marker that is not known."""
    text = path.read_text(encoding="utf-8")
    session: frozenset[str] = frozenset()
    for line, kind, words in _markers(path, text):
        if kind == "session":
            session = frozenset(re.split(r",\s*", words))
            if not session <= {"slurm", "real"}:
                raise PageError(f"{path.name}:{line}: session: {MARKERS['session']}")
    return Page(path, session, list(_blocks(path, text)))


def _blocks(path: Path, text: str) -> Iterator[Block]:
    for found in FENCE.finditer(text):
        above = text[: found.start()].splitlines()
        line = len(above) + 1
        markers: dict[str, str] = {}
        while above and (not above[-1].strip() or COMMENT.match(above[-1])):
            if comment := COMMENT.match(above.pop()):
                kind, _, words = comment[1].partition(": ")
                markers[kind] = words
        named = FILE.search(above[-1]) if above and found[1] not in TYPED else None
        yield Block(line, found[1], found[2], named[1] if named else None, markers)


def _markers(path: Path, text: str) -> Iterator[tuple[int, str, str]]:
    """Every HTML comment; one that is no marker could hide a block by a slip of the pen."""
    for number, line in enumerate(text.splitlines(), 1):
        if "<!--" in line:
            comment = COMMENT.match(line)
            kind, _, words = comment[1].partition(": ") if comment else ("", "", "")
            if kind not in MARKERS or not words:
                raise PageError(f"{path.name}:{number}: not a marker: {line}; valid: <!-- KIND: ... -->, {[*MARKERS]}")
            yield number, kind, words


def _dialog(lines: list[tuple[int, str]]) -> list[Command]:
    commands: list[Command] = []
    goes_on = False
    for number, line in lines:
        if goes_on:
            commands[-1].text += "\n" + line.removeprefix("> ")
        elif line.startswith("$ "):
            commands.append(Command(number, line[2:], []))
        elif commands:
            shown = commands[-1].output
            assert shown is not None
            shown.append(line.rstrip())
            continue
        else:
            raise PageError(f"line {number}: a console block begins with a command")
        goes_on = line.endswith("\\")
    return commands


def _script(lines: list[tuple[int, str]]) -> list[Command]:
    commands: list[Command] = []
    goes_on = False
    for number, line in lines:
        if goes_on:
            commands[-1].text += "\n" + line
        elif line.strip() and not line.startswith("#"):
            commands.append(Command(number, line, None))
        goes_on = line.endswith("\\")
    return commands
