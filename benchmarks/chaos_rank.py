"""SlurmRank: a rank of a Slurm trial, known by its heartbeat, and the signals that it is sent."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos_life import Life
from hpcjobs.run_folder.heartbeat import Vitals
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity


@dataclass
class SlurmRank(Life):
    """A rank as its heartbeat shows it; its guard is its parent process."""

    identity: Identity = field(default_factory=Identity.own)
    host: str = ""

    @classmethod
    def of(cls, vitals: Vitals, paths: RunPaths) -> SlurmRank:
        journal = paths.journal(vitals.attempt, vitals.rank)
        return cls(journal, identity=Identity(**vitals.identity), host=vitals.host)

    @property
    def alive(self) -> bool:
        return self.killed is None and not self.identity.is_dead()

    def send(self, number: signal.Signals) -> None:
        """To the rank, which may just have ended."""
        if not self.identity.is_dead():
            _send(self.identity.pid, number)

    def send_to_guard(self, number: signal.Signals) -> None:
        """To the rank's parent process; not where it is gone, and the kernel has given the rank another one."""
        with contextlib.suppress(OSError):
            parent = int(Path(f"/proc/{self.identity.pid}/stat").read_text().rpartition(")")[2].split()[1])
            if parent > 1 and not self.identity.is_dead():
                _send(parent, number)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
