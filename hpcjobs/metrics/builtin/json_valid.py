"""json_valid: whether the answer is one JSON value."""

from __future__ import annotations

import json
import re

from hpcjobs.metrics.base import Metric
from hpcjobs.requests import Row, Target

_FENCED = re.compile(r"\s*```[A-Za-z0-9_+-]*[ \t]*\n(.*?)\n?[ \t]*```\s*", re.DOTALL)


def is_json(text: str) -> bool:
    """Whether `text` is one JSON value (RFC 8259, so no NaN), bare or in one code fence."""
    fenced = _FENCED.fullmatch(text)
    try:
        json.loads(fenced[1] if fenced else text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


class JsonValid(Metric):
    """1.0 if the whole completion is valid JSON, else 0.0. A code fence around it is allowed, other text is not."""

    name = "json_valid"
    needs_target = False
    normalized = False
    binary = True

    def score(self, completion: str, target: Target, row: Row) -> float:
        """1.0 if the completion is valid JSON, else 0.0."""
        return float(is_json(completion))
