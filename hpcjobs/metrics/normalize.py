"""Normalise texts before they are compared."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Collection
from decimal import Decimal
from functools import reduce

# With or without thousands separators; not part of a word, a version (1.2.3) or a date.
_NUMBER = re.compile(r"(?<![\w.,])[-+]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?!\w|[.,]\d)")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b", re.IGNORECASE)


def normalizer(names: Collection[str]) -> Callable[[str], str]:
    """The function that applies the steps `names` of `task.normalize`, always in the order lower, numbers, punctuation,
    articles, whitespace.

    With `numbers`, punctuation inside a number is kept, so that 3.5 is not 35. Source: lower, punctuation, articles and
    whitespace as in SQuAD's `normalize_answer` (Rajpurkar et al., 2016); numbers are compared by value as in DROP's
    evaluation (Dua et al., 2019).
    """
    steps: dict[str, Callable[[str], str]] = {
        "lower": str.lower,
        "numbers": lambda text: _NUMBER.sub(lambda match: _plain(match[0]), text),
        "punctuation": _beside_numbers if "numbers" in names else _without_punctuation,
        "articles": lambda text: _ARTICLES.sub(" ", text),
        "whitespace": lambda text: " ".join(text.split()),
    }
    chosen = [step for name, step in steps.items() if name in names]
    return lambda text: reduce(lambda done, step: step(done), chosen, text)


def _plain(number: str) -> str:
    """A number in one notation: no thousands separators, no redundant zeros."""
    value = Decimal(number.replace(",", ""))
    return format(value.normalize(), "f") if value else "0"


def _without_punctuation(text: str) -> str:
    return text.translate(_PUNCTUATION)


def _beside_numbers(text: str) -> str:
    parts, end = [], 0
    for match in _NUMBER.finditer(text):
        parts += [_without_punctuation(text[end : match.start()]), match[0]]
        end = match.end()
    return "".join([*parts, _without_punctuation(text[end:])])
