"""attempts/: the starts of a program that have failed, each with its first cause, written by what started it."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field

from hpcjobs.run_folder.files import create_once, json_text, make_folder, read_json
from hpcjobs.run_folder.paths import RunPaths


@dataclass(frozen=True, kw_only=True)
class FailedAttempt:
    """A start of a program of which a rank has failed.

    `rank` on `host` was the first, `why` says how it ended; None where it is not known. It was restart number `restart`
    of `restarts`, 0 being the first start. `again`: the program was started again; else `then` says why not. `left_out`
    are the nodes that the next start does without.
    """

    attempt: str
    restart: int
    restarts: int
    rank: int | None
    host: str | None
    why: str
    again: bool
    then: str = ""
    left_out: list[str] = field(default_factory=list)
    ended_at: float = field(default_factory=time.time)

    @property
    def cause(self) -> str:
        """`rank 1 on node2 (ended with exit code 7)`."""
        host = f" on {self.host}" if self.host else ""
        return self.why if self.rank is None else f"rank {self.rank}{host} ({self.why})"

    def __str__(self) -> str:
        without = f" without {', '.join(self.left_out)}" if self.left_out else ""
        told = f"started again{without}: restart {self.restart + 1} of {self.restarts}"
        return f"attempt {self.attempt} was ended by {self.cause}: {told if self.again else self.then}"

    def record(self, paths: RunPaths) -> None:
        """Write it to its file. What is there stays."""
        create_once(make_folder(paths.attempts) / f"{self.attempt}.json", json_text(dataclasses.asdict(self)))


def failed_attempts(paths: RunPaths) -> list[FailedAttempt]:
    """All failed attempts, oldest first."""
    files = paths.attempts.glob("*.json") if paths.attempts.is_dir() else ()
    known = {one.name for one in dataclasses.fields(FailedAttempt)}
    found = [{name: value for name, value in read_json(path).items() if name in known} for path in files]
    return sorted((FailedAttempt(**values) for values in found), key=lambda one: (one.ended_at, one.attempt))
