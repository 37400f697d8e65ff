"""What stands in rows, answers, errors, names and logs must not steer the terminal that shows it.

One filter for all that the verbs print: control, escape, bidirectional and zero-width characters are shown as they are
written in Python (`\\x1b`), and lines of absurd length are cut on a terminal. JSON has them escaped already.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any, TextIO

from hpcjobs.masking import secret_values, without_values

# Longer lines are cut, on a terminal alone: some terminals take minutes for a line of megabytes.
LONGEST = 4000
# Printable ASCII, tab and newline need no look.
_OTHERS = re.compile(r"[^\t\n -~]+")
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# Joiners shape letters of Indic and Arabic scripts, and emoji; between Latin letters they only hide.
_JOINERS, _LAST_LATIN = "\u200c\u200d", 0x24F


def visible(text: str) -> str:
    """The text with every character that a terminal would obey, or not show, as its escape in Python."""
    return _OTHERS.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    run = found[0]
    return "".join(_one(char, run[place - 1] if place else "") for place, char in enumerate(run))


def _one(char: str, before: str) -> str:
    if unicodedata.category(char) not in _HIDDEN or (char in _JOINERS and before and ord(before) > _LAST_LATIN):
        return char
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def cut_lines(text: str) -> str:
    """The text with lines of more than LONGEST characters cut."""
    if len(text) <= LONGEST:
        return text
    lines = text.split("\n")
    return "\n".join(
        f"{line[:LONGEST]}... and {len(line) - LONGEST} more" if len(line) > LONGEST else line for line in lines
    )


class Shown:
    """A text stream through the filter; all but `write` is that of `raw`."""

    def __init__(self, raw: TextIO, cut: bool) -> None:
        self.raw, self._cut = raw, cut
        self._secrets, self._variables = list(secret_values()), len(os.environ)

    def write(self, text: str) -> int:
        """Write the text, visible and without secrets of the environment; returns its length."""
        if len(os.environ) != self._variables:  # a command's secrets have been put there; to look each time costs
            self._secrets, self._variables = list(secret_values()), len(os.environ)
        shown = visible(without_values(text, self._secrets))
        self.raw.write(cut_lines(shown) if self._cut else shown)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write each line."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


@contextlib.contextmanager
def filtered(whole: bool = False) -> Iterator[None]:
    """Filter standard output and standard error within the block. `whole`: lines are not cut, as those of JSON."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (Shown(stream, stream.isatty() and not whole) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def raw(stream: TextIO) -> TextIO:
    """The stream without the filter, for our own control sequences."""
    return stream.raw if isinstance(stream, Shown) else stream
