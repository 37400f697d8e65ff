"""Put what commands print now into a page, where it shows something else; `...` stays where it was."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from tests.docs.outputs import matches, settled
from tests.docs.pages import OMITTED
from tests.docs.session import Typed

CLOSE = 0.4


def rewritten(shown: Sequence[str], printed: Sequence[str]) -> list[str]:
    """The output to show: of each shown line the printed one that is most like it; all of them where that is not right.

    What cannot be the same twice (`outputs.VARYING`) stays as it is shown.
    """
    if OMITTED not in shown:
        return [_kept(line, shown) for line in printed]
    lines, at = [], 0
    for line in shown:
        if line == OMITTED:
            lines.append(line)
        elif (found := _closest(line, printed[at:])) is not None:
            at += found + 1
            lines.append(_kept(printed[at - 1], [line]))
    return lines if matches(lines, list(printed)) else [_kept(line, shown) for line in printed]


def rewrite(path: Path, wrong: Sequence[Typed]) -> None:
    """Replace the outputs of these commands in the page, from the last one up."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for typed in sorted(wrong, key=lambda typed: -typed.command.line):
        begin = typed.command.line + typed.command.text.count("\n")
        lines[begin : begin + len(typed.shown)] = rewritten(typed.shown, typed.printed)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _kept(line: str, shown: Sequence[str]) -> str:
    return next((old for old in shown if settled(old) == settled(line)), line)


def _closest(line: str, printed: Sequence[str]) -> int | None:
    """Which printed line a shown one has become; the first of equals."""
    likeness = [difflib.SequenceMatcher(None, settled(line), settled(other)).ratio() for other in printed]
    best = max(likeness, default=0.0)
    return likeness.index(best) if best >= CLOSE else None
