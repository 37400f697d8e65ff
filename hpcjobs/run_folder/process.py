"""Which process on which machine: enough to say, from the same machine, that it is dead."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Identity:
    """A process for all time: machine (boot id and pid namespace), pid, and when it began."""

    machine: str
    pid: int
    started: str

    @classmethod
    def own(cls) -> Identity:
        return cls(machine_id(), os.getpid(), process_start(os.getpid()) or "0")

    def is_dead(self) -> bool:
        """True when it certainly runs no more; False also for 'cannot know from here'."""
        return self.machine == machine_id() and process_start(self.pid) != self.started

    def values(self) -> dict[str, Any]:
        return asdict(self)


def machine_id() -> str:
    """This boot of this machine, as seen from this pid namespace; '' where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"unknown-{os.uname().nodename}"


def process_start(pid: int) -> str | None:
    """When a process of this machine began (clock ticks since boot), None when there is none: pids are reused."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None if sys.platform == "linux" else "0"
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()
