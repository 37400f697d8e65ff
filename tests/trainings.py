"""Train runs for tests: planned in process, their ranks real processes, on the tiny model with random weights."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.launch.slurm import clean_environment
from hpcjobs.plan.train import make_train_plan
from hpcjobs.run_folder.files import sha256_of
from hpcjobs.run_folder.heartbeat import read_heartbeat
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.training.steps import StepRecord, read_curve, read_steps
from tests.runs import rank_env, wait_for

ROWS = [{"question": f"Add: {n}+{n % 7}", "answer": f"{n + n % 7} is it" if n % 3 else str(n)} for n in range(60)]


def train_config(data: Path, ranks: int = 1, model: str | dict[str, Any] = "tiny", **train: Any) -> Any:
    """A config of twelve samples a step; `train` are keys of that section."""
    section: dict[str, Any] = {
        "init": "random", "max_steps": 8, "global_batch": 12, "learning_rate": 1e-3, "checkpoint_every": 3,
        "micro_batch": 2,
    }  # fmt: skip
    values: dict[str, Any] = {
        "model": {"name": model} if isinstance(model, str) else model,
        "data": {"name": str(data)},
        "task": {"messages": ({"role": "user", "content": "{{ question }}"},), "target": "{{ answer }}"},
        "run": {"heartbeat": 0.2, "lease_timeout": 20.0, "rendezvous_timeout": 120.0},
        "cluster": {"executor": "local", "ntasks_per_node": ranks},
        "train": section | train,
    }
    return validate(Layer(values))


def plan_training(folder: Path, ranks: int = 1, rows: Sequence[Mapping[str, Any]] = ROWS, **keys: Any) -> RunPaths:
    """A planned train run in `folder`; nothing of it has been started. `keys` are those of train, and `model`."""
    data = folder.with_suffix(".jsonl")
    data.parent.mkdir(parents=True, exist_ok=True)
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    draft = make_train_plan(train_config(data, ranks, **keys), folder)
    draft.write()
    return draft.paths


def record(step: int, attempt: str = "a", rank: int = 0, **more: Any) -> StepRecord:
    """A step of two ranks, half a second long; its loss is 1 / step."""
    values: dict[str, Any] = {
        "step": step, "epoch": step / 10, "loss": 1 / step, "learning_rate": 1e-3, "grad_norm": 1.0, "tokens": 100,
        "targets": 40, "tokens_per_s": 200.0, "seconds": 0.5, "eval_loss": 2 / step if step % 4 == 0 else None,
        "rank_tokens": 50, "samples": [step], "rank": rank, "attempt": attempt, "world_size": 2,
        "started_at": float(step if attempt == "a" else 100 + step),
    }  # fmt: skip
    return StepRecord(**values | more)


def journal(paths: RunPaths, records: Sequence[StepRecord]) -> None:
    """The journal of one rank of one attempt."""
    path = paths.journal(records[0].attempt, records[0].rank)
    path.write_bytes(b"".join(one.line() for one in records))


class RankServer:
    """The process that forks ranks (tests/rank_server.py), and what it has told of them."""

    def __init__(self) -> None:
        env = clean_environment() | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.getcwd()}
        command = [sys.executable, "-m", "tests.rank_server"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True)
        self._told: dict[int, dict[str, int]] = {}
        self._count = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            value = json.loads(line)
            self._told[value["id"]] = self._told.get(value["id"], {}) | value

    def start(self, run: str, env: Mapping[str, str]) -> int:
        """Fork a rank; its number here."""
        self._count += 1
        whole = clean_environment() | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | dict(env)
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"id": self._count, "run": run, "env": whole}) + "\n")
        self._process.stdin.flush()
        return self._count

    def pid(self, number: int) -> int:
        return wait_for(lambda: self._told.get(number, {}).get("pid"), "a rank to be forked", 120)

    def code(self, number: int) -> int | None:
        return self._told.get(number, {}).get("code")

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)


@functools.cache
def rank_server() -> RankServer:
    """The one of this session."""
    server = RankServer()
    atexit.register(server.close)
    return server


class TrainingRanks:
    """The guarded rank processes of one start; whatever still lives at the end of the block is killed."""

    def __init__(self, paths: RunPaths, world: int, attempt: str = "a", **env: str) -> None:
        self.paths, self.world, self.attempt, self._env = paths, world, attempt, env
        self._numbers: list[int] = []

    def __enter__(self) -> TrainingRanks:
        server = rank_server()
        envs = [rank_env(rank, self.world, self.attempt) | self._env for rank in range(self.world)]
        self._numbers = [server.start(str(self.paths.root), env) for env in envs]
        return self

    def __exit__(self, *_: object) -> None:
        for number in self._numbers:
            if rank_server().code(number) is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rank_server().pid(number), signal.SIGKILL)

    def finish(self) -> list[int]:
        """Exit codes of the guards, minus the signal where one ended it; ranks must end by themselves."""

        def look() -> list[int] | None:
            codes = [code for number in self._numbers if (code := rank_server().code(number)) is not None]
            return codes if len(codes) == len(self._numbers) else None

        return wait_for(look, f"the ranks to end: {logs_of(self.paths)}", 180)

    def guard(self, rank: int) -> int:
        """The process of a rank's guard."""
        return rank_server().pid(self._numbers[rank])

    def code(self, rank: int) -> int | None:
        """The exit code of a rank's guard; None as long as it lives."""
        return rank_server().code(self._numbers[rank])

    def signal(self, rank: int, number: signal.Signals) -> None:
        """Send a signal to the rank itself, not to its guard."""
        os.kill(self.pid(rank), number)

    def pid(self, rank: int) -> int:
        """The process of a rank, as soon as it has told."""
        path = self.paths.heartbeat(self.attempt, rank)
        return int(wait_for(lambda: read_heartbeat(path), f"rank {rank}", 120).identity["pid"])

    def wait_for_step(self, step: int) -> None:
        """Until rank 0 has finished `step`."""
        journal = self.paths.journal(self.attempt, 0)
        wait_for(lambda: last_step(journal) >= step, f"step {step}: {logs_of(self.paths)}", 180)


def run_training(paths: RunPaths, world: int, attempt: str = "a", **env: str) -> None:
    """Run all ranks of a start to their end; each must end well."""
    with TrainingRanks(paths, world, attempt, **env) as ranks:
        assert ranks.finish() == [0] * world, logs_of(paths)


def logs_of(paths: RunPaths) -> str:
    """What the ranks said, for a failing assertion."""
    return "\n".join(path.read_text() for path in sorted(paths.logs.glob("*.log")))[-6000:]


def curve_of(paths: RunPaths) -> list[StepRecord]:
    """The steps that count, in order."""
    steps = read_curve(paths).steps
    return [steps[step] for step in sorted(steps)]


def bits(records: Sequence[StepRecord]) -> list[tuple[Any, ...]]:
    """What must not change by an interruption."""
    return [(r.step, r.loss, r.learning_rate, r.grad_norm, r.eval_loss, r.tokens, r.targets) for r in records]


def samples_by_step(paths: RunPaths) -> dict[int, list[int]]:
    """The samples of each step, of all ranks together, sorted; of a step that was run again those of the last time."""
    found: dict[tuple[int, int], StepRecord] = {}
    newest: dict[int, tuple[float, str]] = {}
    for path in paths.journals():
        for record in read_steps(path):
            found[record.step, hash((record.attempt, record.rank))] = record
            newest[record.step] = max(newest.get(record.step, (0.0, "")), (record.started_at, record.attempt))
    steps: dict[int, list[int]] = {}
    for record in found.values():
        if record.attempt == newest[record.step][1]:
            steps.setdefault(record.step, []).extend(record.samples)
    return {step: sorted(samples) for step, samples in sorted(steps.items())}


def weights_hash(paths: RunPaths) -> str:
    """The hash of the final weights."""
    return sha256_of(paths.model / "model.safetensors")


def last_step(journal: Path) -> int:
    """The number of the last whole record, 0 where there is none."""
    lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0
