"""A Slurm whose queue has states: jobs are taken, shown, cancelled, and run only when a test says so. Safe for many
commands at once.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

_SBATCH = """#!/bin/bash
if [ "$1" = --test-only ]; then exit 0; fi
cd "{jobs}" || exit 1
n=100; echo "PENDING|${{@: -1}}" > "{jobs}/.new.$$"
until ln "{jobs}/.new.$$" "{jobs}/$n" 2>/dev/null; do n=$((n + 1)); done
rm "{jobs}/.new.$$"; echo "$n"
"""
_SQUEUE = """#!/bin/bash
cd "{jobs}"
for n in *; do
  [ -e "$n" ] || continue
  IFS='|' read -r state script < "$n"
  echo "$n|$state|None||$script"
done
"""
_SCANCEL = """#!/bin/bash
exec 9> "{jobs}/.lock"; flock 9
for n; do
  IFS='|' read -r state script < "{jobs}/$n" || continue
  case "$state" in PENDING|RUNNING) echo "CANCELLED|$script" > "{jobs}/.$n.$$"; mv "{jobs}/.$n.$$" "{jobs}/$n";; esac
done
"""


class QueueSlurm:
    """Slurm's commands in `bin`; a file a job in `jobs`."""

    def __init__(self, here: Path) -> None:
        self.bin, self.jobs = here / "bin", here / "jobs"
        for folder in (self.bin, self.jobs):
            folder.mkdir(parents=True)
        texts = {"sbatch": _SBATCH, "squeue": _SQUEUE, "scancel": _SCANCEL, "sacct": "#!/bin/bash\n"}
        for name, text in (texts | {"scontrol": "#!/bin/bash\n"}).items():
            filled = text.replace("{jobs}", str(self.jobs)).replace("{{", "{").replace("}}", "}")
            (self.bin / name).write_text(filled)
            (self.bin / name).chmod(0o755)

    def states(self) -> dict[str, str]:
        """Job id -> state."""
        names = sorted(entry.name for entry in self.jobs.iterdir() if not entry.name.startswith("."))
        return {name: (self.jobs / name).read_text().partition("|")[0] for name in names}

    def live(self) -> set[str]:
        """The jobs that are pending or running."""
        return {job_id for job_id, state in self.states().items() if state in ("PENDING", "RUNNING")}

    def set(self, state: str, *jobs: str) -> None:
        """Let these jobs, or all that are not over, have this state."""
        for job_id in jobs or self.live():
            script = (self.jobs / job_id).read_text().partition("|")[2]
            (self.jobs / job_id).write_text(f"{state}|{script}")

    def become(self, state: str, job_id: str) -> bool:
        """Let a job that is not over have this state, beside commands that cancel jobs; False if it is over."""
        with (self.jobs / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            now, _, script = (self.jobs / job_id).read_text().partition("|")
            if now not in ("PENDING", "RUNNING"):
                return False
            new = self.jobs / f".{job_id}.new"
            new.write_text(f"{state}|{script}")
            os.replace(new, self.jobs / job_id)
        return True

    def forget(self) -> None:
        """As if no job had ever been queued."""
        for job_id in self.states():
            (self.jobs / job_id).unlink()
