"""Texts and numbers as the page shows them: escaped, truncated, with hidden characters made visible."""

from __future__ import annotations

import re
import time
import unicodedata
from dataclasses import dataclass

from markupsafe import Markup, escape

HEAD = 400
WHOLE = 8_000
# What a reader cannot see, or what would reorder the text around it: controls other than tab and newline,
# bidi marks and overrides, zero-width and tag characters, line separators, lone surrogates. Joiners
# (U+200C, U+200D) stay: several scripts and emoji need them.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> Markup:
    """`text` escaped for HTML, with hidden characters shown as code points such as U+202E."""
    parts, start = [], 0
    for match in _HIDDEN.finditer(text):
        parts += [escape(text[start : match.start()]), _mark(match[0])]
        start = match.end()
    return Markup("").join([*parts, escape(text[start:])])


def plain(text: str) -> Markup:
    """`text` for attributes and SVG, which hold no markup: escaped, with hidden characters as code points."""
    return escape(_HIDDEN.sub(lambda match: f"U+{ord(match[0]):04X}", text))


def _mark(character: str) -> Markup:
    code = f"U+{ord(character):04X}"
    name = unicodedata.name(character, "control character")
    return Markup('<span class="hidden" title="{}">{}</span>').format(name, code)


@dataclass(frozen=True)
class Cut:
    """A text to show: its head, and the whole text (up to `WHOLE` characters) if that is longer."""

    head: Markup
    whole: Markup | None
    length: int
    shown: int

    @classmethod
    def of(cls, text: str) -> Cut:
        """The first characters of `text`, and the rest."""
        if len(text) <= HEAD:
            return cls(visible(text), None, len(text), len(text))
        return cls(visible(text[:HEAD]), visible(text[:WHOLE]), len(text), min(WHOLE, len(text)))


def count(number: float) -> str:
    """1234567 as '1,234,567'."""
    return f"{number:,.0f}"


def plural(number: int, noun: str) -> str:
    """'1 row', '2,000 rows'."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def rate(number: float) -> str:
    """A rate with three digits: 0.0123, 4.56, 123, 4,567."""
    return count(number) if number >= 100 else f"{number:.3g}"


def percent(share: float) -> str:
    """A share as a percentage; only 1 gives 100%, and only 0 gives 0%."""
    value = 100 * share
    if 99 < value < 100 or 0 < value < 1:
        return f"{min(max(value, 0.1), 99.9):.1f}%"
    return f"{value:.0f}%"


def duration(seconds: float) -> str:
    """Seconds in at most two units: '0.25 s', '12.3 s', '4 min 05 s', '2 h 05 min', '3 d 04 h'."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.2g} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02d} h"
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def stamp(when: float | None) -> str:
    """A time in UTC, since reports are read elsewhere; '' for None."""
    return "" if when is None else time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(when))
