"""Identify a process on a machine, so that others on that machine can tell when it is dead."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Identity:
    """A process, unique over reboots and reused pids: machine (boot id and pid namespace), pid, and start time."""

    machine: str
    pid: int
    started: str

    @classmethod
    def own(cls) -> Identity:
        """The identity of this process."""
        return cls(machine_id(), os.getpid(), process_start(os.getpid()) or "0")

    def is_dead(self) -> bool:
        """True if the process is certainly dead; False if it is alive or runs on another machine."""
        return self.machine == machine_id() and process_start(self.pid) != self.started

    def values(self) -> dict[str, Any]:
        """The identity as JSON values."""
        return asdict(self)


def machine_id() -> str:
    """Identifies this boot of this machine, as seen from this pid namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"unknown-{os.uname().nodename}"


def process_start(pid: int) -> str | None:
    """When a process of this machine started (clock ticks since boot), None if it does not exist.

    Pids are reused; the start time tells two processes with one pid apart.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None if sys.platform == "linux" else "0"
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()
