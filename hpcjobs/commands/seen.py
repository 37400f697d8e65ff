"""What a command has seen of a run when it decided what to do."""

from __future__ import annotations

from dataclasses import dataclass

from hpcjobs.config.shape import Shape
from hpcjobs.launch.claim import Start, claim, overtaken
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.submission import Launch, next_number


@dataclass(frozen=True)
class Seen:
    """The next launch's number and the newest round, read before anything else.

    A launch of another command since then has taken the number, so that this one stops.
    """

    number: int
    round: int

    @classmethod
    def now(cls, paths: RunPaths) -> Seen:
        """What there is now."""
        return cls(next_number(paths), max(paths.rounds(), default=0))

    def claim(self, paths: RunPaths, executor: str, shape: Shape, start: Start, new_round: bool = False) -> Launch:
        """Claim the next launch. Raises an OvertakenError if another command has launched the run since."""
        record = claim(paths, executor, shape, start, self.number, self.round + new_round)
        if record is None:
            raise overtaken(paths, self.number)
        return record
