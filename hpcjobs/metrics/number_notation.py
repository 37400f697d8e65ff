"""Numbers as models write them in one notation: ASCII digits and signs, no LaTeX and no markup around them."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

# Stands for something that has a value and is no number here: a root, pi, a fraction of letters.
OTHER = "\x00"
# Letters that have cases. A digit after one of them belongs to a name (x7, H2O); after a Chinese letter it does not.
CASED = "A-Za-z\u00c0-\u024f\u0370-\u03ff\u0400-\u04ff"

_SINGLE = {
    "\u2212": "-", "\ufe63": "-", "\u2010": "-", "\u2011": "-", "\u2013": "-", "\u2014": " ", "\u2044": "/",
    "\u2215": "/", "\u066b": ".", "\u066c": ",", "\u066a": "%", "\u00a0": " ", "\u202f": " ", "\u2009": " ",
    "\u2007": " ", "\u3000": " ", "\u2019": "'", "\u02bc": "'", "\u00b7": "×", "\u22c5": "×", "\u2219": "×",
    "\u2715": "×", "\u2026": " ", "π": OTHER, "√": OTHER, "∞": OTHER,
}  # fmt: skip
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+")
_SUBSCRIPT = re.compile("[₀-₉]+")
_VULGAR = re.compile("[¼-¾⅐-⅞↉]")
_NOT_ASCII = re.compile("[^\x00-\x7f]")

_GROUPED = re.compile(r"(?<=\d)(?:\\[,;:! ]|\{,\}|~)(?=\d{3})")
_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{([^{}]*)\}\s*\{([^{}]*)\}|(\d)\s*(\d)|(\d)\s*\{([^{}]*)\})")
_ROOT = re.compile(r"\\(?:sqrt\s*(?:\[[^\]\[\\]*\])?\s*(?:\{[^{}]*\}|\w)|pi|infty|tau)(?![A-Za-z])")
_WRAPPED = re.compile(r"\\(?:text\w*|math\w\w|operatorname|emph|underline|mbox|bf)\s*\{([^{}]*)\}")
_LATEX: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), made)
    for pattern, made in (
        (r"\{,\}", ","), (r"\\([$%])", r"\1"), (r"\\(?:left|right|displaystyle|limits)(?![a-z])", ""),
        (r"\^\s*\{?\s*\\(?:circ|prime)\s*\}?", " "), (r"_\s*(?:\{[^{}]*\}|\w)", ""),
        (r"\^\s*\{\s*([-+]?\d+)\s*\}", r"^\1"), (r"\\(?:times|cdot|ast)(?![a-z])", "×"),
        (r"\\[a-zA-Z]+|\\.|[{}~]", " "),
    )
)  # fmt: skip
_EMPHASIS = re.compile(r"(?<!\w)_+(?=[-+$\d.])")
_POWER = re.compile(r"(?<=\d)\*\*(?=[-+]?\d)")
# An exponent of something that is no number: cm^2, x^2, (a + b)^2.
_EXPONENT = re.compile(rf"(?<=[{CASED})\]])\s?\^\s?[-+]?\d+")
_OF_OTHER = re.compile(rf"(?<![\d.,])[\d.,]*+\s?{OTHER}[\s\d.,{OTHER}]*+")


def plain_digits(text: str) -> str:
    """The text with ASCII digits, signs and separators for those of other scripts; invisible marks are left out."""
    return text if text.isascii() else _NOT_ASCII.sub(lambda match: _plain(match[0]), text)


@cache
def _plain(letter: str) -> str:
    if letter in _SINGLE:
        return _SINGLE[letter]
    if 0xFF01 <= ord(letter) <= 0xFF5E:  # full width
        return chr(ord(letter) - 0xFEE0)
    if unicodedata.category(letter) == "Cf":
        return ""
    digit = unicodedata.decimal(letter, None)
    return letter if digit is None else str(digit)


def one_notation(text: str) -> str:
    """The text in one notation: `1{,}234` is 1,234, `½` is 1/2, `10⁸` is 10^8, `\\frac{3}{4}` is 3/4, `_42_` is 42."""
    text = _raised(text)
    text = plain_digits(text)
    text = _without_latex(text) if "\\" in text or "{" in text else text
    text = _EMPHASIS.sub(" ", _POWER.sub("^", text))
    return _OF_OTHER.sub(f" {OTHER} ", _EXPONENT.sub("", re.sub(r"\.{2,}", " ", text)))


def _raised(text: str) -> str:
    """Superscripts as `^`, subscripts left out, and fractions of one letter in full."""
    if text.isascii():
        return text
    text = _SUPERSCRIPT.sub(lambda match: "^" + match[0].translate(_SUPERSCRIPTS), _SUBSCRIPT.sub("", text))
    return _VULGAR.sub(lambda match: _after_digit(match, unicodedata.normalize("NFKC", match[0])), text)


def _after_digit(match: re.Match[str], made: str) -> str:
    """`made`, after a blank if a digit stands before it: one and a half is 1 1/2."""
    before = match.string[: match.start()][-1:]
    return f" {made}" if before.isdigit() else made


def _without_latex(text: str) -> str:
    text = _WRAPPED.sub(r"\1", _GROUPED.sub(",", text))
    text = _ROOT.sub(OTHER, text)
    text = _FRACTION.sub(_fraction, text)
    for pattern, made in _LATEX:
        text = pattern.sub(made, text)
    return text


def _fraction(match: re.Match[str]) -> str:
    parts = [part.strip() for part in match.groups() if part is not None]
    if all(re.fullmatch(r"[-+]?[\d.,]+", part) for part in parts):
        return _after_digit(match, "/".join(parts))
    return OTHER
