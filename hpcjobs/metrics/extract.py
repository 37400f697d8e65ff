"""Extracting: the answer within a completion, by a regular expression."""

from __future__ import annotations

import re
from collections import deque


def extract(pattern: re.Pattern[str], text: str) -> str:
    """The last match's first group that took part, or the whole match where it has none; empty without a match."""
    found = deque(pattern.finditer(text), maxlen=1)
    if not found:
        return ""
    groups = found[0].groups() or (found[0][0],)
    return next((group for group in groups if group is not None), "").strip()
