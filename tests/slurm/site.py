"""A user's account on the test cluster: the hpcjobs command with its runs, and what the runs came to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq

from hpcjobs.commands.status import Status, read_status
from hpcjobs.run_folder.paths import RunPaths
from tests.slurm.cluster import Cluster

ROOT = Path(__file__).resolve().parents[2]
DUMMY = ("--set", "model.engine=dummy", "--set", "run.heartbeat=0.5", "--set", "run.lease_timeout=5")


@dataclass(frozen=True)
class Site:
    """Commands run in `folder`, on `cluster`; python is this one."""

    cluster: Cluster
    folder: Path

    @property
    def env(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return self.cluster.env | {
            "PATH": path,
            "HPCJOBS_RUNS": str(self.folder / "runs"),
            "HF_HUB_OFFLINE": "1",
        }

    def run(self, *argv: str, code: int | None = 0, timeout: float = 240.0) -> subprocess.CompletedProcess[str]:
        """A command as the user types it; fails unless it ends with `code` (None: however it ends)."""
        done = subprocess.run(
            argv, env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert code is None or done.returncode == code, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def hpcjobs(self, *words: str, code: int | None = 0) -> str:
        """`python -m hpcjobs ...`; its output, errors after it."""
        done = self.run(sys.executable, "-m", "hpcjobs", *words, code=code)
        return done.stdout + done.stderr

    def status(self, name: str) -> dict[str, Any]:
        """`hpcjobs status --json`."""
        done = self.run(sys.executable, "-m", "hpcjobs", "status", name, "--json")
        value: dict[str, Any] = json.loads(done.stdout)
        return value

    def look(self, name: str) -> Status:
        """What `hpcjobs status` reads, in this process: waiting by a process a look keeps a whole core busy."""
        with mock.patch.dict(os.environ, self.env, clear=True):
            return read_status(self.paths(name))

    def paths(self, name: str) -> RunPaths:
        return RunPaths(self.folder / "runs" / name)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """results.parquet as rows."""
        rows: list[dict[str, Any]] = pq.read_table(self.paths(name).results).to_pylist()
        return rows

    def metrics(self, name: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.paths(name).metrics.read_text())
        return value

    def jobs(self, name: str) -> dict[str, str]:
        """The last launch's job ids, by what they are for."""
        launches = json.loads(self.paths(name).submission.read_text())["launches"]
        jobs: dict[str, str] = launches[-1]["jobs"]
        return jobs

    def until(self, what: str, look: Callable[[], bool], timeout: float = 180.0) -> None:
        """Wait until `look` says yes, with a deadline."""
        end = time.monotonic() + timeout
        while not look():
            assert time.monotonic() < end, f"waited {timeout:g} s in vain for {what}"
            time.sleep(0.2)
