"""At plan time: an lm_eval task as rows for inputs/, and the code that its ranks need."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from hpcjobs.config import Config, GenerationConfig, TaskConfig
from hpcjobs.errors import ConfigError, did_you_mean
from hpcjobs.run_folder.plan import PlanData
from hpcjobs.run_folder.snapshot import Snapshot
from hpcjobs.tasks.lmeval.codec import encode
from hpcjobs.tasks.lmeval.import_notes import import_notes
from hpcjobs.tasks.lmeval.instances import PlannedDocument, PlannedInstance
from hpcjobs.tasks.lmeval.judge import LmEvalJudge
from hpcjobs.tasks.lmeval.prompting import (
    BY_TASK,
    check_task,
    few_shot_seed,
    generation_of,
    request_options,
    set_few_shot,
    set_generation,
)
from hpcjobs.tasks.lmeval.rehearsal import SCORED, Imports, made_up, rehearse
from hpcjobs.tasks.lmeval.seeded import seeded
from hpcjobs.tasks.lmeval.task_data import TaskData
from hpcjobs.tasks.lmeval.tasks import (
    LoadedTask,
    MetricName,
    PlannedTask,
    find,
    library_folders,
    library_version,
    snapshot,
    user_task,
)
from hpcjobs.tasks.lmeval.user_files import UserTask, with_includes

if TYPE_CHECKING:
    from lm_eval.api.task import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LmEvalPlan:
    """What planning needs: the config with everything that the task decides, its rows and its code."""

    config: Config
    table: pa.Table
    facts: PlanData
    planned: PlannedTask
    data: TaskData
    user: UserTask
    notes: tuple[str, ...] = ()

    def snapshot(self, run: Path) -> Snapshot:
        """The task's code and data, for the run folder `run`."""
        return snapshot(self.user.files(run), self.planned, self.data)


def plan_task(config: Config) -> LmEvalPlan:
    """Load `config.task.name` and build all of its requests, as lm_eval's simple_evaluate would.

    Raises a ConfigError for a task that cannot be loaded or that hpcjobs cannot run.
    """
    check_task(config.task)
    if config.data.title:
        raise ConfigError(
            f"data.name is {config.data.title!r}, and an lm_eval task reads its own data set: leave data.name out "
            "(data.max_samples limits its rows)"
        )
    version, data, imports = library_version(), TaskData(), Imports()
    include = Path(config.task.include_path).expanduser().resolve() if config.task.include_path else None
    with _quiet(), seeded():
        with data.recording():
            loaded, index = find(str(config.task.name), include)
        for name, task in loaded.tasks.items():
            _check(name, task)
        _check_samples(loaded, config)
        set_few_shot(loaded, config.task)
        set_generation(loaded, config.task)
        rows = [row for name, task in loaded.tasks.items() for row in _rows(name, task, config, len(loaded.tasks) > 1)]
        metrics = [] if config.task.predict_only else _metrics(loaded, rows)
    asks = _asks({row["task"]: row["requests"][0]["type"] for row in rows})
    generation = [generation_of(one["arguments"][1]) for row in rows for one in row["requests"] if _generates(one)]
    task_config = _filled_in(config.task, loaded, metrics, generation, include)
    facts = PlanData(name=loaded.name, lm_eval=version, asks=asks, tasks=sorted(loaded.tasks))
    kept = [metric for metric in metrics if metric.text in task_config.metrics]
    user, folders = user_task(loaded, index, include), library_folders(loaded, index)
    planned = PlannedTask(
        name=loaded.name, version=version, tasks=sorted(loaded.tasks), library_folders=folders, metrics=kept,
        include=user.place(include), path=user.place(loaded.path),
    )  # fmt: skip
    with _quiet(), imports.forgotten():
        rehearse(loaded, rows, planned, data, user)
    whole = config.model_copy(update={"task": task_config})
    yamls = [entry.yaml_path for name in loaded.tasks if (entry := index.get(name)) and entry.yaml_path]
    return LmEvalPlan(
        config=whole, table=_table(rows), facts=facts, planned=planned, data=data, user=user,
        notes=tuple(import_notes(with_includes(yamls))),
    )  # fmt: skip


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide lm_eval's progress bars and its log messages about its own choices."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _check(name: str, task: Task) -> None:
    if getattr(task, "MULTIMODAL", False):
        raise ConfigError(f"task.name: {name} asks about images or sound, and hpcjobs gives models text")
    if getattr(task, "UNSAFE_CODE", False):
        raise ConfigError(f"task.name: {name} runs code that the model writes (unsafe_code), which hpcjobs does not")


def _check_samples(loaded: LoadedTask, config: Config) -> None:
    """Raise a ConfigError if `task.samples` names another task, or `data.max_samples` is set as well."""
    if config.task.samples and config.data.max_samples is not None:
        raise ConfigError("task.samples and data.max_samples: set one of them")
    for name in config.task.samples:
        if name not in loaded.tasks:
            near = did_you_mean(name, loaded.tasks)
            raise ConfigError(f"task.samples: {loaded.name} has no task {name!r}{near}")


def _rows(name: str, task: Task, config: Config, several: bool) -> list[PlannedDocument]:
    """The task's documents with their requests, in order: the first `data.max_samples`, or those of `task.samples`."""
    limit, chosen = config.data.max_samples, config.task.samples.get(name)
    if limit == 0:
        raise ConfigError("data.max_samples is 0: an lm_eval task is planned with one row or more")
    samples = None if chosen is None else sorted(set(chosen))
    try:
        task.build_all_requests(limit=limit, samples=samples, rank=0, world_size=1, **request_options(config))
    except ConfigError:
        raise
    except Exception as error:  # templates and functions of the task
        raise ConfigError(f"task.name: {name}'s requests: {type(error).__name__}: {error}") from error
    rows: dict[int, PlannedDocument] = {}
    for instance in task.instances:
        row = rows.get(instance.doc_id)
        if row is None:
            number = instance.doc_id if samples is None else samples[instance.doc_id]
            own = f"{name}:{number}" if several else str(number)
            row = rows[instance.doc_id] = {"id": own, "task": name, "doc": instance.doc, "requests": []}
        row["requests"].append(
            {
                "type": instance.request_type,
                "arguments": instance.args,
                "idx": instance.idx,
                "repeats": instance.repeats,
            }
        )
    for row in rows.values():
        row["requests"].sort(key=lambda one: one["idx"])
        _check_requests(name, row["requests"])
    return list(rows.values())


def _asks(types: Mapping[str, str]) -> Literal["generate", "choice", "perplexity"]:
    """The engine's task type. All log-likelihood types count as one, since one engine computes them."""
    generating = sorted(name for name, kind in types.items() if kind == "generate_until")
    if generating and len(generating) < len(types):
        scoring = sorted(types.keys() - set(generating))
        raise ConfigError(
            f"task.name: {', '.join(generating)} generate, and {', '.join(scoring)} want log-likelihoods: these need "
            "engines of their own, so run them one by one"
        )
    return "generate" if generating else "choice" if "loglikelihood" in types.values() else "perplexity"


def _generates(one: PlannedInstance) -> bool:
    return bool(one["type"] == "generate_until")


def _check_requests(name: str, requests: Sequence[PlannedInstance]) -> None:
    types = {one["type"] for one in requests}
    if not types <= SCORED and len(requests) > 1:
        raise ConfigError(
            f"task.name: {name} makes {len(requests)} requests a document ({', '.join(sorted(types))}); hpcjobs runs "
            "one generation or rolling log-likelihood a document, or any number of log-likelihoods"
        )
    try:
        for one in filter(_generates, requests):
            generation_of(one["arguments"][1])
    except (ValueError, TypeError) as error:
        raise ConfigError(f"task.name: {name}: {error}") from None


def _table(rows: Sequence[PlannedDocument]) -> pa.Table:
    """The rows of inputs/, with document and requests as JSON."""
    columns = {
        "index": pa.array(range(len(rows)), pa.int64()),
        "id": pa.array([row["id"] for row in rows], pa.string()),
        "task": pa.array([row["task"] for row in rows], pa.string()),
        "doc": pa.array([_text(row, row["doc"]) for row in rows], pa.string()),
        "requests": pa.array([_text(row, row["requests"]) for row in rows], pa.string()),
    }
    return pa.table(columns)


def _text(row: PlannedDocument, value: object) -> str:
    try:
        return encode(value)
    except TypeError as error:
        raise ConfigError(f"task.name: document {row['id']} of {row['task']}: {error}") from None


def _metrics(loaded: LoadedTask, rows: Sequence[PlannedDocument]) -> list[MetricName]:
    """All metrics of the tasks: those they declare, and those that their first document gives.

    A metric that makes several (pass_at_k: pass@1, pass@10) shows their names only when it is called.
    """
    found: dict[str, MetricName] = {}
    for name, task in loaded.tasks.items():
        before = dict(task.aggregation())
        filters = [one.name for one in getattr(task, "_filters", [])] or ["none"]
        first = next(row for row in rows if row["task"] == name)
        tried = _tried(loaded, first)
        # A metric that makes several others has no value of its own.
        listed = [(metric, one) for metric in before for one in filters]
        listed = [pair for pair in listed if not tried or pair in tried or not _made_others(task, before, pair[0])]
        for metric, one in dict.fromkeys([*tried, *listed]):
            function = task.aggregation().get(metric)
            source = next((each for each, other in before.items() if other is function), metric)
            source = metric if metric in before else source
            found.setdefault(f"{metric},{one}", MetricName(metric, one, source))
    return list(found.values())


def _made_others(task: Task, before: Mapping[str, object], metric: str) -> bool:
    added = set(task.aggregation()) - set(before)
    return any(task.aggregation()[name] is before[metric] for name in added)


def _tried(loaded: LoadedTask, row: PlannedDocument) -> list[tuple[str, str]]:
    """The (metric, filter) pairs of one document with made-up answers; empty if the task's code fails on them."""
    try:
        return list(LmEvalJudge(loaded, ()).results(made_up(row), row["task"], row["doc"], row["requests"]))
    except Exception as error:
        log.debug("%s cannot score a made-up answer: %s", row["task"], error)
        return []


def _filled_in(
    task: TaskConfig, loaded: LoadedTask, metrics: Sequence[MetricName], generation: Sequence[GenerationConfig],
    include: Path | None,
) -> TaskConfig:  # fmt: skip
    """The task config with what the task itself decides, so that the run's config shows what was run."""
    if task.predict_only and task.metrics:
        raise ConfigError("task.predict_only and task.metrics: set one of them")
    known = [metric.text for metric in metrics]
    for name in task.metrics:
        if name not in known:
            near = did_you_mean(name, known)
            raise ConfigError(f"task.metrics: {loaded.name} has no metric {name!r}{near}; it has {', '.join(known)}")
    shots = {one.get_config("num_fewshot") or 0 for one in loaded.tasks.values()}
    few_shot: dict[str, Any] = {"seed": few_shot_seed(task)} | ({"k": shots.pop()} if len(shots) == 1 else {})
    changes: dict[str, Any] = {
        "metrics": task.metrics or tuple(known),
        "include_path": str(include) if include else None,
        "name": str(loaded.path or task.name),
        "few_shot": task.few_shot.model_copy(update=few_shot),
        "group_by": BY_TASK if len(loaded.tasks) > 1 else (),
    }
    if len(set(generation)) == 1:
        changes["generation"] = generation[0]
    return task.model_copy(update=changes)
