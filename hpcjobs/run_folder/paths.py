"""Every file name of a run, in one place."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from hpcjobs.errors import UsageError

_STEP = re.compile(r"step-(\d{8,})")


def runs_root() -> Path:
    """Where runs live: HPCJOBS_RUNS, or `runs/` in the working folder."""
    return Path(os.environ.get("HPCJOBS_RUNS") or "runs")


@dataclass(frozen=True)
class RunPaths:
    """The names inside one run folder (design: 'The run folder')."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def code(self) -> Path:
        """The user's own code as it was when planning; there only where the run has some."""
        return self.root / "code"

    @property
    def inputs(self) -> Path:
        return self.root / "inputs"

    @property
    def data(self) -> Path:
        return self.inputs / "data.arrow"

    @property
    def few_shot(self) -> Path:
        """The rows that solved examples are taken from, where these are not the data set itself."""
        return self.inputs / "few_shot.arrow"

    @property
    def tokens(self) -> Path:
        """The samples of a train run as token ids."""
        return self.inputs / "tokens.arrow"

    @property
    def validation_data(self) -> Path:
        """The rows of `train.validation_split`."""
        return self.inputs / "validation.arrow"

    @property
    def validation_tokens(self) -> Path:
        return self.inputs / "validation_tokens.arrow"

    @property
    def token_facts(self) -> Path:
        """How many samples, tokens and steps a train run has; there when the token files are."""
        return self.inputs / "tokens.json"

    @property
    def then_eval(self) -> Path:
        """The config of the eval that follows a train run, as it was when planning."""
        return self.root / "then_eval.yaml"

    def eval_of(self, step: int | None = None) -> Path:
        """The run folder of the eval of a model that a train run has made: of its last, or of that of a step."""
        return self.root.with_name(f"{self.root.name}-eval" + ("" if step is None else f"-{_step(step)}"))

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / _step(step)

    @property
    def models(self) -> Path:
        """Models of steps on the way (`train.then_eval_every`)."""
        return self.root / "models"

    def step_model(self, step: int) -> Path:
        return self.models / _step(step)

    @property
    def model(self) -> Path:
        """What a train run has made; there when it is whole."""
        return self.root / "model"

    @property
    def adapter(self) -> Path:
        """The adapters of a train run alone, in peft's format; there when they are whole."""
        return self.root / "adapter"

    @property
    def trackers(self) -> Path:
        """Where the trackers of `train.trackers` that write files do so."""
        return self.root / "trackers"

    @property
    def submission(self) -> Path:
        return self.root / "submission.json"

    @property
    def claims(self) -> Path:
        return self.root / "claims"

    def round(self, number: int) -> Path:
        return self.claims / str(number)

    def chunks(self, round_number: int) -> Path:
        """The chunk list of a round; a round exists when this file does."""
        return self.round(round_number) / "chunks.parquet"

    @property
    def heartbeats(self) -> Path:
        return self.root / "heartbeats"

    def heartbeat(self, attempt: str, rank: int) -> Path:
        return self.heartbeats / f"{attempt}-{rank}.json"

    @property
    def ranks(self) -> Path:
        return self.root / "ranks"

    def journal(self, attempt: str, rank: int) -> Path:
        return self.ranks / f"{attempt}-{rank}.jsonl"

    @property
    def rendezvous(self) -> Path:
        """Who of an attempt has come and where rank 0 listens."""
        return self.root / "rendezvous"

    @property
    def results(self) -> Path:
        return self.root / "results.parquet"

    @property
    def missing(self) -> Path:
        return self.root / "missing.jsonl"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def rank_log(self, attempt: str, rank: int) -> Path:
        return self.logs / f"{attempt}-{rank}.log"

    def stacks(self, attempt: str, rank: int) -> Path:
        """Where a rank that makes no progress writes the stacks of its threads."""
        return self.logs / f"{attempt}-{rank}.stacks"

    def rounds(self) -> list[int]:
        """The rounds that were opened, oldest first."""
        if not self.claims.is_dir():
            return []
        numbers = [int(entry.name) for entry in self.claims.iterdir() if entry.name.isdigit()]
        return sorted(number for number in numbers if self.chunks(number).exists())

    def journals(self) -> list[Path]:
        """All rank journals, by name."""
        return sorted(self.ranks.glob("*.jsonl")) if self.ranks.is_dir() else []


def _step(number: int) -> str:
    return f"step-{number:08d}"


def steps_in(folder: Path) -> list[int]:
    """The steps that have an entry in a folder of steps, whole or not, in order."""
    names = [_STEP.fullmatch(entry.name) for entry in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name[1]) for name in names if name)


def list_runs(root: Path) -> list[RunPaths]:
    """The runs under `root`, oldest first."""
    if not root.is_dir():
        return []
    runs = [RunPaths(entry) for entry in root.iterdir() if (entry / "plan.json").is_file()]
    return sorted(runs, key=lambda run: (run.plan.stat().st_mtime_ns, run.root.name))


def find_run(name: str) -> RunPaths:
    """The run that `name` means: a folder, a name under the runs root, or 'last'; else a UsageError."""
    root = runs_root()
    if name == "last":
        runs = list_runs(root)
        if not runs:
            raise UsageError(f"no run in {root} yet; next: hpcjobs submit eval")
        return runs[-1]
    for folder in (Path(name), root / name):
        if (folder / "plan.json").is_file():
            return RunPaths(folder.resolve())
    known = ", ".join(run.root.name for run in list_runs(root)[-5:]) or "none"
    raise UsageError(f"no run {name!r}: neither a run folder nor a name in {root} (newest there: {known})")
