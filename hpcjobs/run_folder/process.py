"""Identify a process on a machine, so that others on that machine can tell when it is dead."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_LEFT_SECONDS = 2.0


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

    def send(self, number: signal.Signals) -> None:
        """Send a signal to this process, and to no other that has its pid by now. A dead one is no error."""
        with contextlib.suppress(ProcessLookupError):
            if not hasattr(os, "pidfd_open"):
                return None if self.is_dead() else os.kill(self.pid, number)
            handle = os.pidfd_open(self.pid)
            try:
                if not self.is_dead():
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)

    def values(self) -> dict[str, Any]:
        """The identity as JSON values."""
        return asdict(self)


def processes_with(name: str, value: str) -> list[Identity]:
    """The processes of this machine that were started with `name`=`value` in their environment (proc(5)).

    Where there is no /proc, none.
    """
    wanted, machine, found = f"{name}={value}".encode(), machine_id(), []
    for pid in [int(entry) for entry in os.listdir("/proc") if entry.isdigit()] if os.path.isdir("/proc") else ():
        started = process_start(pid)
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if started and wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(Identity(machine, pid, started))
    return found


def end_processes(name: str, value: str) -> None:
    """End the `processes_with` this in their environment, but this one: by SIGTERM, two seconds later by SIGKILL."""
    left = [one for one in processes_with(name, value) if one.pid != os.getpid()]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in left:
            process.send(number)
        deadline = time.monotonic() + _LEFT_SECONDS
        while (left := [one for one in left if not one.is_dead()]) and time.monotonic() < deadline:
            time.sleep(0.05)


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


def children_of(pid: int) -> list[int]:
    """The child processes of a process of this machine; none if it is gone."""
    found = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            found += Path(f"/proc/{pid}/task/{task}/children").read_text().split()
    return [int(word) for word in found]
