"""A Slurm that takes jobs and runs none: small programs on PATH, and a command line to call it from."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

_SBATCH = """#!/bin/bash
here={here}
if [ "$1" = --test-only ]; then [ ! -e "$here/never" ] && exit 0; cat "$here/never" >&2; exit 1; fi
count=$(find "$here/scripts" -type f | wc -l)
printf '%s\\n' "$*" >> "$here/sbatch.calls"
if [ -e "$here/refuse.$count" ]; then
  echo "$((900 + count))|FAILED|||${{@: -1}}" >> "$here/queue"  # Slurm keeps a job of some that it refuses
  cat "$here/refuse.$count" >&2; exit 1; fi
if [ -e "$here/refuse-once.$count" ]; then cat "$here/refuse-once.$count" >&2; rm "$here/refuse-once.$count"; exit 1; fi
if [ -e "$here/sbatch.out" ]; then cat "$here/sbatch.out"; exit 0; fi
cp "${{@: -1}}" "$here/scripts/$((100 + count))"
env -0 > "$here/envs/$((100 + count))"
echo "$((100 + count))|PENDING|||${{@: -1}}" >> "$here/queue"
if [ -e "$here/lose.$count" ]; then cat "$here/lose.$count" >&2; exit 1; fi
echo "$((100 + count));cluster"
"""
# What was queued shows once squeue has been asked, or jobs were queued, so often; what squeue shall print goes before.
_QUEUE = """
shown() { [ -e "$here/squeue.out" ] && grep -q "^$1|" "$here/squeue.out"; }
if [ -e "$here/squeue.out" ]; then sed -E 's/^([0-9]+([|][^|]*){3})$/\\1|/' "$here/squeue.out"; fi
if [ -e "$here/late" ] && [ "$(wc -l < "$here/squeue.calls")" -le "$(cat "$here/late")" ]; then exit 0; fi
if [ -e "$here/late-jobs" ] && [ "$(wc -l < "$here/queue")" -lt "$(cat "$here/late-jobs")" ]; then exit 0; fi
if [ -e "$here/queue" ]; then while IFS= read -r line; do shown "${line%%|*}" || echo "$line"; done < "$here/queue"; fi
exit 0
"""
_OTHER = """#!/bin/bash
here={here}
printf '%s\\n' "$*" >> "$here/{name}.calls"
if [ -e "$here/{name}.err" ]; then cat "$here/{name}.err" >&2; exit 1; fi
{more}
if [ -e "$here/{name}.out" ]; then cat "$here/{name}.out"; fi
"""


class FakeSlurm:
    """Slurm's commands in `bin`; what they were asked, and what they shall answer, in files."""

    def __init__(self, here: Path) -> None:
        self.here, self.bin = here, here / "bin"
        for folder in (self.bin, here / "scripts", here / "envs"):
            folder.mkdir(parents=True)
        self._program("sbatch", _SBATCH.format(here=here))
        for name in ("squeue", "sacct", "scancel", "scontrol"):
            self._program(name, _OTHER.format(here=here, name=name, more=_QUEUE if name == "squeue" else ""))

    def _program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def calls(self, name: str) -> list[str]:
        """The words of each call so far."""
        path = self.here / f"{name}.calls"
        return path.read_text().splitlines() if path.exists() else []

    def answer(self, name: str, text: str) -> None:
        """What a command shall print."""
        (self.here / f"{name}.out").write_text(text)

    def fail(self, name: str, words: str) -> None:
        """Let any of them but sbatch end with 1 and these words."""
        (self.here / f"{name}.err").write_text(words)

    def mend(self, name: str) -> None:
        """It answers again."""
        (self.here / f"{name}.err").unlink()

    def refuse(self, words: str, after: int = 0, once: bool = False) -> None:
        """Let sbatch refuse the job that comes after `after` others; with `once` it takes the next one instead."""
        (self.here / f"{'refuse-once' if once else 'refuse'}.{after}").write_text(words)

    def lose(self, words: str, after: int = 0) -> None:
        """Let sbatch queue the job that comes after `after` others, and yet end with 1 and these words."""
        (self.here / f"lose.{after}").write_text(words)

    def show_late(self, calls: int = 0, jobs: int = 0) -> None:
        """Let squeue tell the commands of jobs only after so many calls, and when so many are queued."""
        (self.here / "late").write_text(str(calls))
        (self.here / "late-jobs").write_text(str(jobs))

    def script(self, job: int) -> str:
        return (self.here / "scripts" / str(job)).read_text()

    def env(self, job: int) -> dict[str, str]:
        """The environment that sbatch had for a job."""
        words = (self.here / "envs" / str(job)).read_text().split("\0")
        return dict(word.split("=", 1) for word in words if "=" in word)


@dataclass(frozen=True)
class Said:
    """What a command line ended with and printed."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The one error message on stderr."""
        lines = self.err.strip().splitlines()
        assert lines, "nothing was said on stderr"
        assert lines[0].startswith("error: "), self.err
        return self.err.strip().removeprefix("error: ")


class Shell:
    """A user in `home` at a cluster's login node: runs hpcjobs in this process, or in a real one."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self.runs, self._capsys, self._monkeypatch = home, home / "runs", capsys, monkeypatch
        self.slurm = FakeSlurm(home / "slurm")
        for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_", "HPCJOBS_"))]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PATH", f"{self.slurm.bin}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "xdg"))
        monkeypatch.setenv("HPCJOBS_RUNS", str(self.runs))
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.chdir(home)

    def without_slurm(self) -> None:
        """A PATH that has no Slurm at all."""
        tools = self.home / "tools"
        tools.mkdir()
        for name in ("git", "bash", "env"):
            (tools / name).symlink_to(f"/usr/bin/{name}")
        self._monkeypatch.setenv("PATH", str(tools))

    def write(self, name: str, text: str) -> str:
        (self.home / name).write_text(text, encoding="utf-8")
        return name

    def run(self, *words: str) -> Said:
        """`hpcjobs words` in this process."""
        from hpcjobs.cli.app import main

        self._capsys.readouterr()
        code = main(list(words))
        said = self._capsys.readouterr()
        return Said(code, said.out, said.err)

    def process(self, *words: str) -> Said:
        """`python -m hpcjobs words` as a user would."""
        command = [sys.executable, "-m", "hpcjobs", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return Said(done.returncode, done.stdout, done.stderr)

    def left(self) -> list[str]:
        """What lies under the runs root."""
        return sorted(os.listdir(self.runs)) if self.runs.exists() else []
