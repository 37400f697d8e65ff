"""Extract the answer from a completion by a regular expression."""

from __future__ import annotations

import re
from collections import deque


def extract(pattern: re.Pattern[str], text: str) -> str:
    """The first matching group of the last match, or the whole match if it has no groups; empty without a match."""
    found = deque(pattern.finditer(text), maxlen=1)
    if not found:
        return ""
    groups = found[0].groups() or (found[0][0],)
    return next((group for group in groups if group is not None), "").strip()
