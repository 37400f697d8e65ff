"""The names of all files of a run."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from hpcjobs.errors import UsageError
from hpcjobs.run_folder.trust import check_trusted

# Names and paths may be no longer (path_resolution(7)).
_LONGEST = 4096
_STEP = re.compile(r"step-(\d{8,})")


def runs_root() -> Path:
    """The folder of all runs: HPCJOBS_RUNS, or `runs/` in the working directory."""
    return Path(os.environ.get("HPCJOBS_RUNS") or "runs")


@dataclass(frozen=True)
class RunPaths:
    """The names of the files in one run folder."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved config; it never holds a secret."""
        return self.root / "config.yaml"

    @property
    def plan(self) -> Path:
        """Shape, chunking, and the hashes of data, config, code and model."""
        return self.root / "plan.json"

    @property
    def code(self) -> Path:
        """The user's own code, copied when planning; absent if the run has none."""
        return self.root / "code"

    @property
    def inputs(self) -> Path:
        """The folder of the input rows."""
        return self.root / "inputs"

    @property
    def data(self) -> Path:
        """The input rows, with `index` and `id`."""
        return self.inputs / "data.arrow"

    @property
    def few_shot(self) -> Path:
        """The rows that few-shot examples come from, if not the data set itself."""
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
        """The validation samples of a train run as token ids."""
        return self.inputs / "validation_tokens.arrow"

    @property
    def token_facts(self) -> Path:
        """The numbers of samples, tokens and steps of a train run; written after the token files."""
        return self.inputs / "tokens.json"

    @property
    def planned(self) -> Path:
        """The hashes of the inputs as they were planned."""
        return self.inputs / "planned.json"

    @property
    def versions(self) -> Path:
        """The versions of the packages that the first rank ran with."""
        return self.inputs / "versions.json"

    @property
    def calls(self) -> Path:
        """The pickled functions and arguments of a run of hpcjobs.Executor."""
        return self.inputs / "calls.pkl"

    @property
    def call_facts(self) -> Path:
        """Where each call stands in `calls`, and what holds for all of them."""
        return self.inputs / "calls.json"

    @property
    def jobs(self) -> Path:
        """The folder of the results and the output of calls, named as submitit names them."""
        return self.root / "jobs"

    def call_checkpoint(self, index: int, number: int) -> Path:
        """The state that a call has saved when it was interrupted for the `number`-th time, from 1."""
        return self.checkpoints / f"{index}.{number}.pkl"

    @property
    def then_eval(self) -> Path:
        """The config of the eval that follows a train run, resolved when planning."""
        return self.root / "then_eval.yaml"

    def eval_of(self, step: int | None = None) -> Path:
        """The run folder of the eval of a train run's model: of the final one, or of a step's."""
        return self.root.with_name(f"{self.root.name}-eval" + ("" if step is None else f"-{_step(step)}"))

    def eval_failure(self, step: int | None = None) -> Path:
        """Why the eval of a train run's model could not be started; there is no such file once it was."""
        return self.logs / ("then_eval" + ("" if step is None else f"-{_step(step)}") + ".error")

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.root / "checkpoints"

    def checkpoint(self, step: int) -> Path:
        """The checkpoint of a step."""
        return self.checkpoints / _step(step)

    @property
    def models(self) -> Path:
        """The folder of the models of intermediate steps (`train.then_eval_every`)."""
        return self.root / "models"

    def step_model(self, step: int) -> Path:
        """The model of an intermediate step."""
        return self.models / _step(step)

    @property
    def model(self) -> Path:
        """The final model of a train run; present only when it is whole."""
        return self.root / "model"

    @property
    def adapter(self) -> Path:
        """The LoRA adapter of a train run in peft's format; present only when it is whole."""
        return self.root / "adapter"

    @property
    def trackers(self) -> Path:
        """The folder that trackers (`train.trackers`) write to."""
        return self.root / "trackers"

    @property
    def submission(self) -> Path:
        """The jobs that were queued, with their scripts and commands; written from `launches/`."""
        return self.root / "submission.json"

    @property
    def launches(self) -> Path:
        """The folder with the records of each launch."""
        return self.root / "launches"

    @property
    def claims(self) -> Path:
        """The folder of the ledger, with one folder per round."""
        return self.root / "claims"

    def round(self, number: int) -> Path:
        """The claims of a round."""
        return self.claims / str(number)

    def chunks(self, round_number: int) -> Path:
        """The chunk list of a round. A round exists once this file does."""
        return self.round(round_number) / "chunks.parquet"

    @property
    def heartbeats(self) -> Path:
        """The folder of the heartbeats."""
        return self.root / "heartbeats"

    def heartbeat(self, attempt: str, rank: int) -> Path:
        """The heartbeat of a rank."""
        return self.heartbeats / f"{attempt}-{rank}.json"

    @property
    def ranks(self) -> Path:
        """The folder of the journals."""
        return self.root / "ranks"

    def journal(self, attempt: str, rank: int) -> Path:
        """The journal of a rank."""
        return self.ranks / f"{attempt}-{rank}.jsonl"

    @property
    def rendezvous(self) -> Path:
        """The folder in which the ranks of an attempt find rank 0's address."""
        return self.root / "rendezvous"

    @property
    def attempts(self) -> Path:
        """The folder of the starts of a program that have failed, and why."""
        return self.root / "attempts"

    @property
    def tables(self) -> Path:
        """The folder of the merged tables: of the one that stands, and of those that are being made."""
        return self.root / "tables"

    @property
    def table(self) -> Path:
        """The link to the folder of the table that stands."""
        return self.tables / "current"

    @property
    def results(self) -> Path:
        """The merged results: one row per input, in input order."""
        return self.root / "results.parquet"

    @property
    def missing(self) -> Path:
        """The samples without an accepted result, and why; empty if the run is complete."""
        return self.root / "missing.jsonl"

    @property
    def metrics(self) -> Path:
        """Metrics with confidence intervals, counts and provenance."""
        return self.root / "metrics.json"

    @property
    def report(self) -> Path:
        """The report, one self-contained file."""
        return self.root / "report.html"

    @property
    def logs(self) -> Path:
        """The folder of the logs of ranks, jobs and submitit."""
        return self.root / "logs"

    def rank_log(self, attempt: str, rank: int) -> Path:
        """The log of a rank."""
        return self.logs / f"{attempt}-{rank}.log"

    def stacks(self, attempt: str, rank: int) -> Path:
        """The stack traces of a rank that makes no progress."""
        return self.logs / f"{attempt}-{rank}.stacks"

    def rounds(self) -> list[int]:
        """The numbers of the rounds, oldest first."""
        if not self.claims.is_dir():
            return []
        numbers = [int(entry.name) for entry in self.claims.iterdir() if entry.name.isdigit()]
        return sorted(number for number in numbers if self.chunks(number).exists())

    def journals(self) -> list[Path]:
        """All journals, by name."""
        return sorted(self.ranks.glob("*.jsonl")) if self.ranks.is_dir() else []


def _step(number: int) -> str:
    return f"step-{number:08d}"


def steps_in(folder: Path) -> list[int]:
    """The steps that have an entry in a folder of checkpoints or models, whole or not, in order."""
    names = [_STEP.fullmatch(entry.name) for entry in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name[1]) for name in names if name)


def list_runs(root: Path) -> list[RunPaths]:
    """The runs in the folder `root`, oldest first."""
    if not root.is_dir():
        return []
    named = [entry for entry in root.iterdir() if not entry.name.startswith(".")]
    runs = [RunPaths(entry) for entry in named if (entry / "plan.json").is_file()]
    return sorted(runs, key=lambda run: (run.plan.stat().st_mtime_ns, run.root.name))


def find_run(name: str) -> RunPaths:
    """The run with this name: a folder, a name under the runs root, or 'last'. Raises a UsageError."""
    root = runs_root()
    if name == "last":
        runs = list_runs(root)
        if not runs:
            raise UsageError(f"no run in {root} yet; next: hpcjobs submit eval")
        check_trusted(runs[-1].root)
        return runs[-1]
    for folder in (Path(name), root / name) if len(name) < _LONGEST else ():
        if (folder / "plan.json").is_file():
            root = folder.resolve()
            check_trusted(root)
            return RunPaths(root)
    known = ", ".join(run.root.name for run in list_runs(root)[-5:]) or "none"
    why = "HPCJOBS_RUNS" if os.environ.get("HPCJOBS_RUNS") else "runs/ here, as HPCJOBS_RUNS is not set"
    where = f"{root.absolute()}, the runs root ({why})"
    raise UsageError(f"no run {name!r}: neither a run folder nor a name in {where}; newest there: {known}")
