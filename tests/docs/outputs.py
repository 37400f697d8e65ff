"""Whether a command printed what the page shows: to the letter, but for what cannot be the same twice.

A line `...` stands for any lines. `VARYING` is all that is not compared; a figure that is not in it, a metric, a count,
an interval, must be the one that the page shows.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from tests.docs.pages import OMITTED

# What is not the same twice, and what stands for it on both sides.
VARYING = [
    ("a rate", r"\b\d[\d.]*/s\b", "N/s"),
    ("the time left", r"\b(\d+d)?(\d+h)?(\d+m)?\d+s left\b", "T left"),
    ("a date and time", r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?", "DATE"),
    ("a date in a made-up name", r"\b20\d{6}-\d{6}(-[0-9a-f]{4})?\b", "DATE"),
    ("a process", r"\b(supervisor |local\d+t)\d+\b", r"\1PID"),
    # Slurm gives numbers away as it likes: one to each question whether a job could start, too.
    ("a job's number", r"\b(work|merge|join|batch job) \d+\b", r"\1 ID"),
    ("a job's number", r"^cancelled: job \d+(, job \d+)*$", "cancelled: JOBS"),
    ("a job's number", r"^(note +job )\d+( \(.* scontrol release )\d+$", r"\1ID\2ID"),
    ("a job's number", r"^(job +)\d+ \(", r"\1ID ("),
    ("a job's number", r"\battempt \d+\.", "attempt ID."),
    ("a job's number", r"^\[\d+_(\d+_log\.out\])", r"[ID_\1"),
    # How far a run was when it was looked at; of a complete one all figures count.
    ("progress", r"\b(pending|running), \d+/(\d+) samples \(\d+%\), .*", r"\1, N/\2 samples"),
    ("progress", r"^(resume +)\d+( of \d+ samples)", r"\1N\2"),
    ("progress", r"^samples \d+( of \d+, missing )[1-9]\d*(, errors \d+; tokens) \d+ in, \d+ out", r"samples N\1N\2 N"),
    ("progress", r"^(\S+ +)\d.*( INCOMPLETE)$", r"\1N\2"),
]
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def settled(line: str) -> str:
    """The line with everything in `VARYING` replaced."""
    for _, pattern, instead in VARYING:
        line = re.sub(pattern, instead, line)
    return line.rstrip()


def matches(shown: list[str], printed: list[str], last_digit: bool = False) -> bool:
    """Whether the printed lines are the shown ones, `...` aside; `last_digit`: decimals may be one off there."""
    shown, printed = [settled(line) for line in shown], [settled(line) for line in printed]
    first, *parts = _parts(shown)
    if not _same(first, printed[: len(first)], last_digit):
        return False
    if not parts:
        return len(first) == len(printed)
    at = len(first)
    *middle, last = parts
    for part in middle:
        starts = range(at, len(printed) - len(part) + 1)
        at = next((n + len(part) for n in starts if _same(part, printed[n : n + len(part)], last_digit)), -1)
        if at < 0:
            return False
    return at + len(last) <= len(printed) and _same(last, printed[len(printed) - len(last) :], last_digit)


def difference(shown: list[str], printed: list[str]) -> str:
    """The two as a diff, for people."""
    pair = ([settled(line) for line in shown], [line.rstrip() for line in printed])
    return "\n".join(difflib.unified_diff(*pair, "shown", "printed", lineterm="", n=1))


def unnoticed(shown: list[str], printed: list[str], last_digit: bool = False) -> Iterator[str]:
    """The shown lines in which a figure could be changed without a mismatch, though it is not in `VARYING`."""
    for number, line in enumerate(shown):
        for digit in re.finditer(r"\d", line):
            other = str((int(digit[0]) + 5) % 10)
            wrong = line[: digit.start()] + other + line[digit.end() :]
            if settled(wrong) != settled(line):
                changed = [*shown[:number], wrong, *shown[number + 1 :]]
                if matches(changed, printed, last_digit):
                    yield wrong


def _parts(lines: list[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for line in lines:
        if line.strip() == OMITTED:
            parts.append([])
        else:
            parts[-1].append(line)
    return parts


def _same(shown: list[str], printed: list[str], last_digit: bool) -> bool:
    if shown == printed or not last_digit:
        return shown == printed
    return len(shown) == len(printed) and all(map(_close, shown, printed))


def _close(shown: str, printed: str) -> bool:
    """The same text, and each decimal at most one unit of its last digit apart."""
    if NUMBER.sub("", shown) != NUMBER.sub("", printed):
        return False
    for one, other in zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True):
        digits = len(one.partition(".")[2])
        if one != other and (digits == 0 or digits != len(other.partition(".")[2])):
            return False
        if abs(round(float(one) * 10**digits) - round(float(other) * 10**digits)) > 1:
            return False
    return True
