"""Normalise texts before they are compared."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Collection
from decimal import Decimal
from functools import reduce

from hpcjobs.metrics.number_notation import plain_digits

# With or without thousands separators and exponent; not part of a word, a version (1.2.3), a date or a fraction.
_NUMBER = re.compile(
    r"(?<![\w.,/:])(?<!\d-)[-+]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3})?(?!\w|[.,/:-]\d)"
)
# Punctuation between two digits, as of 3/4, 3:30 and 2024-05-01: without it they would be other numbers.
_INSIDE = re.compile(r"(?<=\d)[^\w\s](?=\d)")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b", re.IGNORECASE)


def normalizer(names: Collection[str]) -> Callable[[str], str]:
    """The function that applies the steps `names` of `task.normalize`, always in the order lower, numbers, punctuation,
    articles, whitespace.

    With `numbers`, punctuation inside a number or between digits is kept, so that 3.5 is not 35 and 3/4 not 34. Source:
    lower, punctuation, articles and whitespace as in SQuAD's `normalize_answer` (Rajpurkar et al., 2016); numbers are
    compared by value as in DROP's evaluation (Dua et al., 2019).
    """
    steps: dict[str, Callable[[str], str]] = {
        "lower": str.lower,
        "numbers": lambda text: _NUMBER.sub(lambda match: _plain(match[0]), plain_digits(text)),
        "punctuation": _beside_numbers if "numbers" in names else _without_punctuation,
        "articles": lambda text: _ARTICLES.sub(" ", text),
        "whitespace": lambda text: " ".join(text.split()),
    }
    chosen = [step for name, step in steps.items() if name in names]
    return lambda text: reduce(lambda done, step: step(done), chosen, text)


def _plain(number: str) -> str:
    """A number in one notation: no thousands separators, no exponent, no redundant zeros."""
    value = Decimal(number.replace(",", ""))
    text = format(value, "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text.lstrip("+")) if value else "0"


def _without_punctuation(text: str) -> str:
    return text.translate(_PUNCTUATION)


def _beside_numbers(text: str) -> str:
    kept = sorted([*_spans(_NUMBER, text), *_spans(_INSIDE, text)])
    parts, end = [], 0
    for start, stop in kept:
        parts += [_without_punctuation(text[end:start]), text[max(start, end) : stop]]
        end = max(end, stop)
    return "".join([*parts, _without_punctuation(text[end:])])


def _spans(pattern: re.Pattern[str], text: str) -> list[tuple[int, int]]:
    return [match.span() for match in pattern.finditer(text)]
