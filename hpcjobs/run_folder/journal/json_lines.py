"""JSON Lines on disk: one object per line, split at b'\\n' only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def lines_of(offset: int, block: bytes) -> Iterator[tuple[int, bytes]]:
    """(offset, line without newline) of each line of a block that starts at `offset`."""
    for line in block.split(b"\n")[:-1]:
        yield offset, line
        offset += len(line) + 1


def one_object_a_line(block: bytes, objects: int) -> bool:
    """Whether the `objects` objects that Arrow has read from `block` stand on one line each.

    Each line begins and ends with a brace. Inside an object no `}` is followed by `{`, so no line has less than one
    object; there are as many objects as lines, so none has more.
    """
    text = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    begins = np.concatenate([[0], ends[:-1] + 1])
    return len(ends) == objects and bool(
        (text[ends - 1] == ord("}")).all() and (text[begins] == ord("{")).all() and ends[-1] == len(block) - 1
    )
