"""One program of others under srun or torchrun alone, and under hpcjobs: its exit code and its last number."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.slurm.cluster import Cluster

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 600.0


@dataclass(frozen=True)
class Program:
    """A program, found in a checkout, and what is changed in it before it runs.

    `source`: the checkout's folder. `path`: the program in it; the folder that it stands in is what is copied. `words`:
    its arguments, where {data} is the folder of programs_data. `changes`: (old text, new text) in the program, or (file
    beside it, old, new). `how`: what starts it alone, "torchrun" or "srun"; "node": the words start the ranks of a node
    themselves. `last`: a pattern with the number that must be the same, its last match counts. `what`: the changes in
    words.
    """

    source: str
    path: str
    words: tuple[str, ...] = ()
    changes: tuple[tuple[str, ...], ...] = ()
    how: str = "torchrun"
    last: str = r"loss\W*?(?:tensor\()?([-+.\de]+)"
    what: str = ""
    command: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    srun: tuple[str, ...] = ()
    shapes: tuple[str, ...] = ("1x2", "2x1")
    env: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """How the results know it."""
        started = f" ({' '.join(self.command)})" if self.command else ""
        return f"{self.source} {self.path}{started}"

    @property
    def shown(self) -> str:
        """What stands in the table."""
        words = " ".join([*self.command, f"{self.source}/{self.path}"])
        return f"`{words}`".replace("{tasks}", "2")

    def lay(self, checkouts: Path, data: Path, folder: Path, shape: tuple[int, int]) -> None:
        """Copy its folder to `folder`, and make the changes. Raises a ValueError if a text to change is not there."""
        program = checkouts / self.source / self.path
        shutil.copytree(program.parent, folder)
        for name, at in self.files:
            (folder / at).parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(data / name, folder / at, dirs_exist_ok=True)
        for change in self.changes:
            file, old, new = change if len(change) == 3 else (program.name, *change)
            text = (folder / file).read_text()
            if old not in text:
                raise ValueError(f"{self.name}: {file} does not have {old!r}")
            for name, value in _values(data, shape).items():
                new = new.replace(f"{{{name}}}", value)
            (folder / file).write_text(text.replace(old, new))

    def argv(self, data: Path, shape: tuple[int, int]) -> list[str]:
        """The command, as it stands behind `hpcjobs submit script --`."""
        return [word.format(**_values(data, shape)) for word in (*self.command, Path(self.path).name, *self.words)]


def _values(data: Path, shape: tuple[int, int]) -> dict[str, str]:
    """What {names} in words and changes stand for."""
    return {"data": str(data), "nodes": str(shape[0]), "tasks": str(shape[1])}


@dataclass(frozen=True)
class Outcome:
    """How one run ended."""

    code: int
    last: str
    seconds: float


def run(program: Program, under: str, shape: str, cluster: Cluster, place: tuple[Path, Path, Path]) -> Outcome:
    """Run it `under` "alone" or "hpcjobs" on `shape`, "1x2" is a node with two ranks.

    `place`: the checkouts, the data, and an empty folder for this run, where its output is kept as `output`.
    """
    checkouts, data, folder = place
    nodes, per_node = (int(number) for number in shape.split("x"))
    work = folder / "work"
    program.lay(checkouts, data, work, (nodes, per_node))
    argv = program.argv(data, (nodes, per_node))
    alone = _alone(program, argv, nodes, per_node)
    words = alone if under == "alone" else _hpcjobs(program, argv, nodes, per_node, folder)
    began = time.monotonic()
    with (folder / "output").open("wb") as output:
        code = _limited(words, output.fileno(), work, _environment(program, cluster, folder))
    seconds = time.monotonic() - began
    text = (folder / "output").read_text(errors="replace")
    if under == "hpcjobs":
        text += "".join(path.read_text(errors="replace") for path in sorted(folder.glob("run/logs/*_log.*")))
        told = re.search(r"ended with exit code (\d+)", text)
        code = int(told[1]) if code and told else code
        (folder / "output").write_text(text)
    found = re.findall(program.last, text)
    return Outcome(code, str(found[-1]) if found else "", seconds)


def _environment(program: Program, cluster: Cluster, folder: Path) -> dict[str, str]:
    """One thread a rank, and no hub; the checkout of hpcjobs that this file is of."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return cluster.env | {
        "PATH": path, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
        "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "WANDB_MODE": "disabled",
        "ACCELERATE_USE_CPU": "true",  # else accelerate takes ranks without GPUs for programs of their own
        "TOKENIZERS_PARALLELISM": "false", "HPCJOBS_RUNS": str(folder / "runs"), "PYTHONUNBUFFERED": "1",
    } | program.env  # fmt: skip


def _alone(program: Program, argv: list[str], nodes: int, per_node: int) -> list[str]:
    """`srun program`, or `srun torchrun program`, one torchrun a node."""
    tasks = per_node if program.how == "srun" else 1
    step = ["srun", f"--nodes={nodes}", f"--ntasks-per-node={tasks}", f"--ntasks={nodes * tasks}", *program.srun]
    if program.how == "srun":
        return [*step, sys.executable, *argv]
    if program.how == "node":
        return [*step, *argv]
    meet = ("--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{_free_port()}", "--rdzv-id=1") if nodes > 1 else ()
    torchrun = ["-m", "torch.distributed.run", f"--nnodes={nodes}", f"--nproc-per-node={per_node}"]
    return [*step, sys.executable, *torchrun, *(meet or ("--standalone",)), *argv]


def _hpcjobs(program: Program, argv: list[str], nodes: int, per_node: int, folder: Path) -> list[str]:
    tasks = 1 if program.how == "node" else per_node
    shape = ["--nodes", str(nodes), "--ntasks-per-node", str(tasks), "--gpus", "0"]
    srun = ["--set", f"cluster.srun_args=[{', '.join(program.srun)}]"] if program.srun else []
    where = ["--executor", "slurm", "--run-dir", str(folder / "run"), "--wait", "--yes"]
    return [sys.executable, "-m", "hpcjobs", "submit", "script", *shape, *where, *srun, "--", *argv]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _limited(words: list[str], output: int, folder: Path, env: dict[str, str]) -> int:
    """Its exit code; 124, as timeout(1) has it, where it does not end in time."""
    try:
        return subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder, env=env, timeout=LIMIT,
            check=False,
        ).returncode  # fmt: skip
    except subprocess.TimeoutExpired:
        return 124
