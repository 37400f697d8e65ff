"""A page typed into a shell: one user, one folder, its commands in order, with the files that it gives."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.docs.outputs import difference, matches, unnoticed
from tests.docs.pages import ROOT, Block, Command, Page, PageError

DEADLINE = 240.0
POLL = 0.2
OUTSIDE = re.compile(r"(SLURM|SBATCH|SALLOC|SRUN|SQUEUE|SACCT|HPCJOBS|HF|PYTEST|XDG|ACCELERATE|OMP|MKL)\w*_|PYTHON")
# What a session's checkout has beside an environment: all that the pages name.
CHECKOUT = ("Makefile", "pyproject.toml", "constraints.txt", "configs", "sbatch", "tools", "benchmarks", "hpcjobs")
# `$?`, the working folder and what was exported are the last command's, as in one shell.
SHELL = """\
[ ! -f "$DOCS_STATE" ] || . "$DOCS_STATE"
(exit "${DOCS_CODE:-0}")
eval "$1"
DOCS_CODE=$?
{ export -p; printf 'cd -- %q\\nDOCS_CODE=%s\\n' "$PWD" "$DOCS_CODE"; } > "$DOCS_STATE"
exit "$DOCS_CODE"
"""
# A file that a command reads: a word with one of these endings, unless an option before it says that it is written.
INPUT = re.compile(r"^[\w./~-]+\.(ya?ml|jsonl?|csv|parquet|py|sbatch)$")
WRITTEN = ("--out", "--report", "--output", "--output_dir", "-o", ">")


@dataclass(frozen=True)
class Typed:
    """A command of a page, and what came of it."""

    command: Command
    printed: list[str]
    code: int
    last_digit: bool

    @property
    def shown(self) -> list[str]:
        return self.command.output or []

    @property
    def fault(self) -> str | None:
        """What is not as the page shows it; None where all is."""
        if self.command.output is not None and not matches(self.shown, self.printed, self.last_digit):
            return difference(self.shown, self.printed)
        return None

    @property
    def unnoticed(self) -> list[str]:
        """Lines in which a wrong figure would not be noticed."""
        compared = self.command.output is not None
        return list(unnoticed(self.shown, self.printed, self.last_digit)) if compared else []


class Session:
    """A home folder `home` with the working folder `qa` and a checkout `hpcjobs`; pages call it /home/me."""

    def __init__(self, home: Path, env: Mapping[str, str] | None = None, real: Path | None = None) -> None:
        """`env`: that of a cluster, else this process's; `real`: what `qa/real` is, made by tools/fetch_real.py."""
        self.home, self.folder = home.resolve(), home.resolve() / "qa"
        self.folder.mkdir(parents=True)
        self._make_checkout()
        outside = os.environ if env is None else env
        kept = {key: value for key, value in outside.items() if not OUTSIDE.match(key) or key == "SLURM_CONF"}
        self.env = kept | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "DOCS_STATE": str(self.home / ".state"),
            "LC_ALL": "C.UTF-8",
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",  # two threads on a shared core are many times slower than one
            "PYTHONUNBUFFERED": "1",  # stdout and stderr in the order in which a terminal has them
        }
        self._names = [(str(self.home), "/home/me"), (str(ROOT), "/home/me/hpcjobs")]
        if real is not None:
            (self.folder / "real").symlink_to(real)
            self._names.insert(0, (str(real.resolve()), "/home/me/qa/real"))

    def _make_checkout(self) -> None:
        """Links to this checkout, and an environment that `make` takes for its own."""
        venv = self.home / "hpcjobs" / ".venv"
        venv.mkdir(parents=True)
        for name in CHECKOUT:
            (venv.parent / name).symlink_to(ROOT / name)
        for path in Path(sys.prefix).iterdir():
            if not path.name.startswith("."):
                (venv / path.name).symlink_to(path)
        (venv / ".installed").touch()

    def type_page(self, page: Page) -> Iterator[Typed]:
        """Make the files and type the commands, in order. Raises PageError where a command does not end as shown."""
        for block in page.blocks:
            if not block.runs:
                continue
            if block.name is not None:
                self._write(block.name, block.text)
            if "wait" in block.markers:
                self._wait(block.markers["wait"])
            for command, following in zip(block.commands, [*block.commands[1:], None], strict=False):
                yield self._type(page, block, command, following)

    def _type(self, page: Page, block: Block, command: Command, following: Command | None) -> Typed:
        where = f"{page.name}:{command.line}: {command.text}"
        if missing := [word for word in inputs(command.text) if not self._finds(word)]:
            raise PageError(f"{where}\nneither given nor made before: {', '.join(missing)}")
        printed, code = self.run(command.text)
        shown = command.output or []
        asked = following is not None and following.text == "echo $?"
        refused = any(line.startswith("error: ") for line in shown)
        if not asked and bool(code) != refused:
            raise PageError(f"{where}\nexit code {code}\n" + "\n".join(printed))
        return Typed(command, printed, code, "last digit" in block.markers)

    def run(self, text: str) -> tuple[list[str], int]:
        """What a command line prints, as it would be for /home/me, and its exit code."""
        with (self.home / ".output").open("w+b") as output:
            shell = subprocess.Popen(
                ["bash", "--noprofile", "--norc", "-c", SHELL, "bash", text],
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                code = shell.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                os.killpg(shell.pid, signal.SIGKILL)
                shell.wait()
                raise PageError(f"not within {DEADLINE:g} s: {text}") from None
            output.seek(0)
            return self._seen(output.read().decode(errors="backslashreplace")), code

    def _seen(self, text: str) -> list[str]:
        for name, instead in self._names:
            text = text.replace(name, instead)
        lines = [line.rstrip() for line in text.splitlines()]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def _write(self, name: str, text: str) -> None:
        path = self.home / name[2:] if name.startswith("~/") else self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def _finds(self, word: str) -> bool:
        """Whether a file is there for the next command, in whatever folder the last one has left the shell."""
        return self.run(f"test -e {word}")[1] == 0

    def _wait(self, what: str) -> None:
        end = time.monotonic() + DEADLINE
        while not self._come(what):
            if time.monotonic() > end:
                raise PageError(f"waited {DEADLINE:g} s in vain: {what}")
            time.sleep(POLL)

    def _come(self, what: str) -> bool:
        """Whether what a reader would wait for has come about."""
        looks: list[tuple[str, Callable[..., bool]]] = [
            (r"(\S+) has (\d+) samples?", lambda run, count: self._samples(run) >= int(count)),
            (r"(\S+) has (\d+) ranks?", lambda run, count: self._ranks(run) >= int(count)),
            (r"(\S+) is merged", lambda run: (self.folder / "runs" / run / "report.html").exists()),
            (r"no job is left", lambda: not self.run("squeue --noheader")[0]),
        ]
        for pattern, look in looks:
            if found := re.fullmatch(pattern, what):
                return look(*found.groups())
        raise PageError(f"cannot wait for: {what}")

    def _ranks(self, run: str) -> int:
        return len(list((self.folder / "runs" / run / "heartbeats").glob("*.json")))

    def _samples(self, run: str) -> int:
        return sum(path.read_bytes().count(b"\n") for path in (self.folder / "runs" / run / "ranks").glob("*.jsonl"))


def inputs(text: str) -> list[str]:
    """The files that a command line names to be read."""
    words = text.replace("\\\n", " ").split()
    read = [word for before, word in zip(["", *words], words, strict=False) if before not in WRITTEN]
    values = [word.partition("=")[2] if word.startswith("-") else word for word in read]
    return [word for word in values if INPUT.match(word)]


def faults(page: Page, session: Session) -> list[str]:
    """Everything in a page that is not as it shows it, or where a wrong figure would not be noticed."""
    found = []
    for typed in session.type_page(page):
        where = f"{page.name}:{typed.command.line}: {typed.command.text}"
        if typed.fault is not None:
            found.append(f"{where}\n{typed.fault}")
        found += [f"{where}\nthis would pass as well: {line}" for line in typed.unnoticed if typed.fault is None]
    return found
