"""The nodes of an allocation: those that run the program, and those that are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hpcjobs.launch.failure import Failure

# So many failures by itself on one node mark it as bad.
_STRIKES = 2


class Nodes:
    """Of `names`, in Slurm's order, `wanted` run the program; the rest are spares.

    A node is gone if a rank on it has said no end, and is not used again. It is bad if a rank on it stood still, or was
    twice the first that failed: then a spare takes its place, if there is one.
    """

    def __init__(self, names: Sequence[str], wanted: int) -> None:
        self.names, self.wanted = list(names), wanted
        self._gone, self._bad, self._strikes = set[str](), set[str](), Counter[str]()

    def chosen(self) -> list[str]:
        """The nodes for the next start, fewer than wanted if no more are left."""
        usable = [name for name in self.names if name not in self._gone]
        best = sorted(usable, key=lambda name: name in self._bad)[: self.wanted]
        return [name for name in self.names if name in best]

    def left_out(self) -> list[str]:
        """The nodes that the next start does without as they are gone or bad."""
        chosen = self.chosen()
        return [name for name in self.names if name in self._gone | self._bad and name not in chosen]

    def blame(self, failure: Failure) -> None:
        """Learn from the end of an attempt."""
        self._gone |= failure.silent
        if failure.host is None:
            return
        self._strikes[failure.host] += 1
        if not failure.own or self._strikes[failure.host] >= _STRIKES:
            self._bad.add(failure.host)
