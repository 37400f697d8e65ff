"""JSON Lines on disk: one object per line, split at b'\\n' only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

Others = Literal["error", "ignore"]
# Bytes of a block that a thread of Arrow takes at a time.
_PART = 1 << 20


def lines_of(offset: int, block: bytes) -> Iterator[tuple[int, bytes]]:
    """(offset, line without newline) of each line of a block that starts at `offset`."""
    for line in block.split(b"\n")[:-1]:
        yield offset, line
        offset += len(line) + 1


def parse_block(block: bytes, schema: pa.Schema, others: Others = "error") -> pa.Table | None:
    """The columns `schema` of a block of whole lines, parsed by Arrow.

    None if Arrow refuses a line, if it is not UTF-8, or if objects are not on one line each. `others`: what to do with
    fields that are not in `schema`.
    """
    import pyarrow as pa
    import pyarrow.json as pj

    try:
        if not block.isascii():
            block.decode()
        options = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior=others)
        table = pj.read_json(pa.BufferReader(block), pj.ReadOptions(block_size=_PART), options)
    except (pa.ArrowException, UnicodeDecodeError):
        return None
    return table.select(schema.names) if one_object_a_line(block, len(table)) else None


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
