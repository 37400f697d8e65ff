"""f1: SQuAD's word overlap."""

from __future__ import annotations

import re
import string
from collections import Counter

from hpcjobs.metrics.base import Metric, golds
from hpcjobs.requests import Row, Target

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> list[str]:
    """The words of a text in lower case, without ASCII punctuation and articles. Source: SQuAD v1.1's
    `normalize_answer`.
    """
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split()


def overlap(completion: str, gold: str) -> float:
    """F1 of two bags of words, 0 to 1; two empty ones agree. Source: SQuAD v2's evaluate script."""
    answer, right = normalize(completion), normalize(gold)
    if not answer or not right:
        return float(answer == right)
    same = sum((Counter(answer) & Counter(right)).values())
    return 2 * same / (len(answer) + len(right))


class F1(Metric):
    """The best word overlap with any target.

    Source: Rajpurkar et al., 'SQuAD', 2016, and its evaluate-v1.1.py.
    """

    name = "f1"
    bounds = (0.0, 1.0)
    normalized = False

    def score(self, completion: str, target: Target, row: Row) -> float:
        """The best F1 with any target, 0 to 1."""
        return max((overlap(completion, gold) for gold in golds(target)), default=0.0)

    def vote(self, text: str) -> tuple[str, ...] | None:
        """The normalized words."""
        return tuple(normalize(text)) or None
