"""Which row has which place of the key-value cache, and what can be copied instead of computed."""

from __future__ import annotations

from collections.abc import Sequence

from hpcjobs.engines.loop.packed import Piece
from hpcjobs.engines.loop.row import Row
from hpcjobs.engines.prefix import shared_head


class Places:
    """Free places, and the tokens whose keys and values each place holds, also after its row has left."""

    def __init__(self, count: int) -> None:
        self._contents: list[tuple[list[int], int]] = [([], 0)] * count  # the first so many of these tokens
        self._free = list(range(count))
        self._fresh: set[int] = set()  # given to a row that has not begun: soon to be overwritten

    @property
    def free(self) -> int:
        return len(self._free)

    def give(self, rows: Sequence[Row]) -> None:
        """A place for each row, neighbours for rows of like length: they are read together."""
        for row in sorted(rows, key=lambda row: -len(row.tokens)):
            row.place = self._free.pop(0)
            self._fresh.add(row.place)

    def begin(self, row: Row) -> None:
        """The longest head of the row that some place holds need not be computed; its last token always is.

        What an earlier piece of the same pass stores counts as held.
        """
        source, shared = -1, 0
        wanted = row.tokens[:-1]
        for place, (tokens, count) in enumerate(self._contents):
            if count > shared < len(wanted) and tokens[shared] == wanted[shared]:
                length = shared_head(tokens[:count], wanted)
                if length > shared and (place == row.place or place not in self._fresh):
                    source, shared = place, length
        self._fresh.discard(row.place)
        row.stored = shared
        if source not in (-1, row.place):
            row.source, row.copied = source, shared

    def holds(self, row: Row, piece: Piece) -> None:
        """With this piece of its prompt, the row's place holds all up to its end."""
        self._contents[row.place] = (row.tokens, piece.end)

    def take_back(self, row: Row, whole: bool) -> None:
        """The row has ended; what its place holds stays known, unless it failed."""
        if not whole:
            self._contents[row.place] = ([], 0)
        self._fresh.discard(row.place)
        self._free = sorted([*self._free, row.place])

    def forget(self) -> None:
        """Nothing is known to be held anywhere."""
        self._contents = [([], 0)] * len(self._contents)
