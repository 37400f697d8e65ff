"""Run a task by hpcjobs on two ranks and by `simple_evaluate`, with one model in one process, and compare."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.config.resolve import read_config
from hpcjobs.connector import AccelerateConnector
from hpcjobs.distributed.drain import Allocation, Drain
from hpcjobs.distributed.rank import Rank
from hpcjobs.distributed.watchdog import Limits, Watchdog
from hpcjobs.distributed.work import Work
from hpcjobs.errors import ConfigError
from hpcjobs.merge.eval import merge
from hpcjobs.plan.eval import make_plan
from hpcjobs.run_folder.heartbeat import Heartbeat, Vitals
from hpcjobs.run_folder.journal.journal import Journal
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.run_folder.process import Identity
from hpcjobs.tasks.lmeval.tasks import task_manager
from hpcjobs.worker.chunk_runner import ChunkRunner
from tests.reference.lm_eval_library.hub import offline_hub
from tests.runs import rank_env

_WORLD = 2
_RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class Case:
    """A task with options, as hpcjobs' config and as arguments of `simple_evaluate`.

    `refused` is part of the message if it is refused when planning; `may_lack` is whether it may also be refused since
    lm_eval cannot load it here. `include` is a folder of further tasks.
    """

    task: str
    what: str = ""
    ours: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    theirs: Mapping[str, Any] = field(default_factory=dict)
    refused: str = ""
    may_lack: bool = False
    include: Path | None = None

    @property
    def title(self) -> str:
        """The task and what is special."""
        return f"{self.task} {self.what}".strip()


@dataclass(frozen=True)
class Outcome:
    """How many values, standard errors and samples were compared; what differs; the metrics; or why it was refused."""

    values: int = 0
    samples: int = 0
    differences: tuple[str, ...] = ()
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    refused: str = ""


class Bench:
    """One model for both sides."""

    def __init__(self, model: Path) -> None:
        os.environ["DISABLE_MULTIPROC"] = "1"  # lm_eval would bootstrap in a process a core
        self._model = model
        self._connector = AccelerateConnector(str(model), batch_size=8)
        self._connector.load_model_once()

    @functools.cached_property
    def _hflm(self) -> Any:
        from lm_eval.models.huggingface import HFLM

        return HFLM(str(self._model), device="cpu", dtype="float32", batch_size=8)

    def compare(self, case: Case, folder: Path) -> Outcome:
        """Run the case by both; `folder` is a new one."""
        with offline_hub():
            try:
                draft = make_plan("eval", self._config(case), folder)
            except ConfigError as error:
                said = str(error)
                return Outcome(refused=said, differences=() if self._expected(case, said) else (said,))
            if case.refused:
                return Outcome(differences=("it was not refused",))
            draft.write()
            for rank in range(_WORLD):
                self._work(draft.paths, rank)
            merge(draft.paths)
            return compared(draft.paths, self.reference(case), draft.config.task.metrics)

    def _expected(self, case: Case, refused: str) -> bool:
        """Whether this refusal is right: the expected one, or lm_eval cannot load the task either."""
        if case.refused and case.refused in refused:
            return True
        if not case.may_lack or "lm_eval cannot load" not in refused:
            return False
        try:
            self.reference(case)
        except Exception:  # what lm_eval's code and its packages raise
            return True
        return False

    def reference(self, case: Case) -> dict[str, Any]:
        """What `simple_evaluate` says."""
        import lm_eval

        manager = task_manager((str(case.include),) if case.include else (), not case.include)
        options = {"bootstrap_iters": _RESAMPLES, "fewshot_as_multiturn": True, "log_samples": True} | dict(case.theirs)
        found: dict[str, Any] = lm_eval.simple_evaluate(self._hflm, tasks=[case.task], task_manager=manager, **options)
        return found

    def _config(self, case: Case) -> Any:
        values: dict[str, dict[str, Any]] = {
            "model": {"name": str(self._model), "dtype": "float32"},
            "task": {"type": "lm_eval", "name": case.task, "include_path": str(case.include) if case.include else None},
            "run": {"sharding": "static", "chunk_size": 2},
            "cluster": {"executor": "local"},
        }
        for section, added in case.ours.items():
            values[section] = values.get(section, {}) | dict(added)
        return validate(Layer(values))

    def _work(self, paths: RunPaths, rank: int) -> None:
        """What a rank does, with the model that is loaded."""
        config, plan = read_config(paths.config), Plan.read(paths.plan)
        engine = self._connector.engine(config.task.generation, plan.data.asks or "generate")
        with _beating(paths, rank) as heartbeat, Journal(paths.journal("a", rank)) as journal:
            drain = Drain(Allocation(None, 2.0, 90.0, 30.0))
            watch = Watchdog(heartbeat, drain, Limits(600, 600), paths.stacks("a", rank))
            work = Work(
                paths=paths,
                config=config,
                plan=plan,
                rank=Rank.from_env(rank_env(rank, _WORLD, "a")),
                heartbeat=heartbeat,
                drain=drain,
                watch=watch,
            )
            shift = ChunkRunner(work, journal, engine)
            with shift:
                for completion in engine.stream(shift.requests()):
                    shift.record(completion)


@contextlib.contextmanager
def _beating(paths: RunPaths, rank: int) -> Iterator[Heartbeat]:
    vitals = Vitals(rank=rank, attempt="a", host="here", world_size=_WORLD, identity=Identity.own().values())
    with Heartbeat(paths.heartbeat("a", rank), vitals, 60) as heartbeat:
        yield heartbeat


def compared(paths: RunPaths, theirs: Mapping[str, Any], chosen: Sequence[str]) -> Outcome:
    """The chosen metrics' values and standard errors, the answers and scores of samples against lm_eval's."""
    said = json.loads(paths.metrics.read_text())
    rows = pq.read_table(paths.results).to_pylist()
    wrong = [f"{row['id']}: {row['error']}" for row in rows if row["error"] is not None]
    count, metrics = 0, dict[str, float | None]()
    for name, results in (theirs["results"] | theirs.get("groups", {})).items():
        ours = _of(said, name, theirs)
        for key, value in results.items():
            metric, _, one = key.partition(",")
            if not one or metric.endswith("_stderr") or not isinstance(value, int | float) or key not in chosen:
                continue
            stderr = results.get(f"{metric}_stderr,{one}")
            wrong += _differs(f"{name} {key}", ours[key]["value"], value)
            wrong += _differs(f"{name} {key} stderr", ours[key]["stderr"], None if stderr == "N/A" else stderr)
            count += 1
            metrics[key] = value
    samples, differing = _samples(rows, theirs["samples"], chosen)
    wrong += [*differing, *([] if metrics.keys() == set(chosen) else ["other metrics"])]
    return Outcome(count, samples, tuple(wrong), metrics)


def _of(said: Mapping[str, Any], name: str, theirs: Mapping[str, Any]) -> Mapping[str, Any]:
    groups = said.get("groups", {})
    found: Mapping[str, Any] = groups.get("task", {}).get(name) or groups.get("group", {}).get(name) or said["metrics"]
    return found


def _samples(rows: list[dict[str, Any]], samples: Mapping[str, Any], chosen: Sequence[str]) -> tuple[int, list[str]]:
    by_id = {(row["input"]["task"], row["id"].rpartition(":")[2]): row for row in rows}
    count, wrong = 0, list[str]()
    for task, logged in samples.items():
        for sample in logged:
            row, name = by_id[task, str(sample["doc_id"])], f"{task} {sample['doc_id']} {sample['filter']}"
            count += 1
            if isinstance(sample["resps"][0][0], str):
                answers = list(row["completions"] or [row["completion"]])
                wrong += [] if answers == sample["resps"][0] else [f"{name}: {answers} for {sample['resps'][0]}"]
            for metric in sample["metrics"]:
                key = f"{metric},{sample['filter']}"
                if isinstance(sample[metric], int | float) and key in chosen:
                    wrong += _differs(f"{name} {metric}", row["scores"][key], sample[metric])
    expected = {(task, str(sample["doc_id"])) for task, logged in samples.items() for sample in logged}
    return count, wrong + ([] if expected == set(by_id) else ["other documents"])


def _differs(what: str, ours: float | None, theirs: float | None) -> list[str]:
    if ours is None or theirs is None:
        return [] if ours is theirs or (theirs is not None and math.isnan(theirs)) else [f"{what}: {ours} for {theirs}"]
    close = math.isclose(ours, theirs, rel_tol=2e-5, abs_tol=2e-5)
    return [] if close else [f"{what}: {ours!r} for {theirs!r}"]
