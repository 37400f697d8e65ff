"""Places in the key-value cache: which row has which, and which prefixes can be copied instead of computed."""

from __future__ import annotations

from collections.abc import Sequence

from hpcjobs.engines.loop.packed import Piece
from hpcjobs.engines.loop.row import Row
from hpcjobs.engines.prefix import shared_head


class Places:
    """The free places, and the tokens whose keys and values each place still has, even after its row has left."""

    def __init__(self, count: int) -> None:
        self._contents: list[tuple[list[int], int]] = [([], 0)] * count  # the first so many of these tokens
        self._free = list(range(count))
        self._fresh: set[int] = set()  # given to a row that has not begun: soon to be overwritten

    @property
    def free(self) -> int:
        """The number of free places."""
        return len(self._free)

    def give(self, rows: Sequence[Row]) -> None:
        """Give each row a place. Rows of similar length become neighbours, since they are read together."""
        for row in sorted(rows, key=lambda row: -len(row.tokens)):
            row.place = self._free.pop(0)
            self._fresh.add(row.place)

    def begin(self, row: Row) -> None:
        """Reuse the longest prefix of the row that some place has stored; the last token is always computed.

        What an earlier piece of the same pass stores counts as stored.
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
        """Note that the row's place has stored everything up to the end of this piece of its prompt."""
        self._contents[row.place] = (row.tokens, piece.end)

    def take_back(self, row: Row, whole: bool) -> None:
        """Free the place of a finished row. Its content stays known, unless the row failed."""
        if not whole:
            self._contents[row.place] = ([], 0)
        self._fresh.discard(row.place)
        self._free = sorted([*self._free, row.place])

    def forget(self) -> None:
        """Forget the content of all places."""
        self._contents = [([], 0)] * len(self._contents)
