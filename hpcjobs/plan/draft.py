"""The plan: what a config comes to on a cluster, before anything is written or queued."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from hpcjobs.config.resolve import dump
from hpcjobs.config.schema import Config, sbatch_word
from hpcjobs.config.shape import Shape, shape_of
from hpcjobs.errors import ConfigError, DataError, UsageError
from hpcjobs.metrics import Judge, check_groups, metrics_of
from hpcjobs.plan.locate import located
from hpcjobs.plan.model import checked_model, fetched
from hpcjobs.plan.user_code import metric_code, program_code
from hpcjobs.run_folder.disk import disk_errors, whole_run
from hpcjobs.run_folder.files import make_folder, read_json, write_json, write_whole
from hpcjobs.run_folder.inputs import table_parts, table_sha256
from hpcjobs.run_folder.ledger.chunks import Ints, default_chunk_size, plan_chunks, write_chunks
from hpcjobs.run_folder.paths import RunPaths, checked_name, runs_root
from hpcjobs.run_folder.provenance import code_facts
from hpcjobs.run_folder.snapshot import Snapshot
from hpcjobs.tasks.datasets import expected_work, load_table, user_columns, user_row
from hpcjobs.tasks.few_shot import Pool, TableRows, is_own, pool_table
from hpcjobs.tasks.prompts import Prompts

JOBS = ("eval", "generate", "train", "script")


@dataclass(frozen=True)
class Plan:
    """plan.json: nodes, ranks, GPUs, chunking, and what was hashed so that one knows what ran."""

    run: str
    job: str
    shape: Shape
    rows: int
    chunk_size: int
    chunks: int
    data: dict[str, Any]
    model: dict[str, Any]
    config_sha256: str
    code: dict[str, Any]
    created_at: float
    argv: list[str] = field(default_factory=list)
    train: dict[str, Any] = field(default_factory=dict)
    version: int = 1

    @classmethod
    def read(cls, path: Path) -> Plan:
        values = read_json(path)
        return cls(**values | {"shape": Shape(**values["shape"])})

    def write(self, path: Path) -> None:
        write_json(path, dataclasses.asdict(self))

    def summary(self) -> list[str]:
        """The plan in a few lines, for people."""
        lines = [f"run     {self.run}", f"job     {self.job}: {self.shape}", *self._code_lines()]
        if self.job == "script":
            return [*lines, f"command {' '.join(self.argv)}"]
        lines += self._model_lines()
        if self.job == "train":
            return [*lines, f"data    {self.data['name']}: {self.rows} rows", *self._train_lines()]
        chunks = f"{self.chunks} chunks of at most {self.chunk_size}, smaller ones at the end"
        if self.chunks == self.rows:
            chunks = f"{self.chunks} chunks of one"
        return [*lines, f"data    {self.data['name']}: {self.rows} rows in {chunks}"]

    def _train_lines(self) -> list[str]:
        train = self.train
        lines = [f"batch   {train['global_batch']} a step: {train['batches']}", f"steps   {train['steps']}"]
        lines += [f"then    eval of model/ by {train['then_eval']}"] if train["then_eval"] else []
        return lines + [f"note    {note}" for note in train["notes"]]

    def _code_lines(self) -> list[str]:
        snapshot = self.code.get("snapshot", {})
        copied = [f"code    {snapshot['files']} of your own files, as they are now"] if snapshot.get("files") else []
        return copied + ([f"note    {snapshot['note']}"] if snapshot.get("note") else [])

    def _model_lines(self) -> list[str]:
        model = self.model
        likely = f": {model['likely_engine']}" if "likely_engine" in model else ""
        plain = self.job == "train" or model["engine"] == model["name"]
        engine = "" if plain else f" (engine {model['engine']}{likely})"
        lines = [f"model   {model['name']}{engine}"]
        if model.get("commit"):
            lines.append(f"commit  {model['commit']}")
        elif "cache" in model:
            lines.append(f"note    not in the cache {model['cache']}: would be fetched before anything is queued")
        return lines


@dataclass(frozen=True)
class Draft:
    """A plan with all that will be written, still in memory: checked, nothing on disk."""

    paths: RunPaths
    config: Config
    plan: Plan
    table: pa.Table | None
    chunks: list[Ints]
    snapshot: Snapshot = field(default_factory=Snapshot)
    pool: pa.Table | None = None
    validation: pa.Table | None = None
    then_eval: str | None = None

    def write(self) -> None:
        """Make the run folder; a UsageError where the name is taken. What fails half way leaves no folder.

        A hub model that the cache lacks is fetched before; a ConfigError where it cannot be. A DiskFullError tells
        what the whole run needs.
        """
        plan = dataclasses.replace(self.plan, model=fetched(self.plan.model, self.config))
        inputs = self.table.nbytes if self.table is not None else 0
        need = inputs + whole_run(plan.rows, plan.chunks, inputs)
        with disk_errors(self.paths.root, need=need, next_command="the same command again"):
            self._make(plan)

    def _make(self, plan: Plan) -> None:
        make_folder(self.paths.root.parent)
        try:
            self.paths.root.mkdir(mode=0o700)
        except FileExistsError:
            raise UsageError(
                f"run {self.paths.root} exists: choose another --name, or go on with it: hpcjobs resume {self.plan.run}"
            ) from None
        try:
            self._fill(plan)
        except BaseException:
            remove_folder(self.paths.root)
            raise

    def _fill(self, plan: Plan) -> None:
        paths = self.paths
        for folder in (paths.inputs, paths.heartbeats, paths.ranks, paths.logs, paths.rendezvous):
            make_folder(folder)
        write_whole(paths.config, dump(self.config))
        if self.table is not None:
            write_whole(paths.data, table_parts(self.table))
        if self.plan.job in ("eval", "generate"):
            make_folder(paths.round(0))
            write_chunks(paths.chunks(0), self.chunks)
        if self.validation is not None:
            write_whole(paths.validation_data, table_parts(self.validation))
        if self.then_eval is not None:
            write_whole(paths.then_eval, self.then_eval)
        if self.pool is not None:
            write_whole(paths.few_shot, table_parts(self.pool))
        self.snapshot.write(paths.code)
        plan.write(paths.plan)


def remove_folder(folder: Path) -> None:
    """Take a run folder away that nothing was queued for."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def make_plan(job: str, config: Config, folder: Path | None = None) -> Draft:
    """Check everything that can be checked before the queue, and plan the run."""
    shape = shape_of(config.cluster, config.model.gpus_per_rank)
    config = located(config)
    if config.task.type == "lm_eval":
        return _lm_eval_plan(job, config, folder, shape)
    metrics = metrics_of(config.task) if job == "eval" else ()
    if job == "eval" and not metrics:
        raise ConfigError("task.metrics is empty: name a metric, or use `submit generate` for answers without scores")
    config = config.model_copy(update={"task": config.task.model_copy(update={"metrics": metrics})})
    needing = [metric.name for metric in Judge(config.task).metrics if getattr(metric, "needs_target", True)]
    if needing and config.task.target is None:
        raise ConfigError(f"task.target is not set, and {', '.join(needing)} compare with it")
    model = checked_model(config)
    table = load_table(config.data)
    check_groups(config.task.group_by, table.schema)
    few_shot, shots = pool_table(config, table), config.task.few_shot
    pool = Pool(shots, TableRows(table if few_shot is None else few_shot), is_own(shots)) if shots.k else None
    prompts = Prompts(config.task, user_columns(table.column_names), pool)
    _try_first(prompts, table)
    size = config.run.chunk_size or default_chunk_size(len(table))
    chunks = plan_chunks(expected_work(table, prompts.columns & set(table.column_names)), size)
    data = {"name": config.data.name, "rows": len(table), "sha256": table_sha256(table), "columns": table.column_names}
    if few_shot is not None:
        data["few_shot_sha256"] = table_sha256(few_shot)
    return draft_run(
        job, config, folder, shape, lambda run: metric_code(metrics, run), few_shot=few_shot,
        table=table, chunks=chunks, chunk_size=size, data=data, model=model,
    )  # fmt: skip


def _lm_eval_plan(job: str, config: Config, folder: Path | None, shape: Shape) -> Draft:
    """The plan of an lm_eval task, which brings its own data, prompts and metrics."""
    from hpcjobs.tasks.lmeval.build import plan_task

    if job != "eval":
        raise ConfigError("task.type lm_eval has metrics of its own: use `submit eval`")
    model, task = checked_model(config), plan_task(config)
    size = config.run.chunk_size or default_chunk_size(len(task.table))
    chunks = plan_chunks(expected_work(task.table, {"requests"}), size)
    content = table_sha256(task.table)
    data = task.facts | {"rows": len(task.table), "sha256": content, "columns": task.table.column_names}
    return draft_run(
        job, task.config, folder, shape, task.snapshot,
        table=task.table, chunks=chunks, chunk_size=size, data=data, model=model,
    )  # fmt: skip


def make_script_plan(config: Config, argv: list[str], folder: Path | None = None) -> Draft:
    """The plan of `submit script`: the program is checked, there is no data."""
    if not argv or argv == ["-m"]:
        raise UsageError("nothing to run: hpcjobs submit script --nodes 2 -- prog.py args, or -- -m module args")
    if not argv[0].startswith("-") and not Path(argv[0]).is_file():
        raise UsageError(f"script {argv[0]} does not exist: submit script runs a Python file, or -m module")
    shape = shape_of(config.cluster, 1, script=True)
    return draft_run("script", config, folder, shape, lambda run: program_code(argv, Path.cwd(), run), argv=argv)


def draft_run(
    job: str,
    config: Config,
    folder: Path | None,
    shape: Shape,
    own_code: Callable[[Path], Snapshot],
    *,
    table: pa.Table | None = None,
    chunks: list[Ints] | None = None,
    few_shot: pa.Table | None = None,
    validation: pa.Table | None = None,
    then_eval: str | None = None,
    **details: Any,
) -> Draft:
    root = folder or _root(config) / (config.run.name or _default_name(job, config))
    checked_name(root.name, "run name")
    try:
        sbatch_word(str(root.absolute()))
        if "%" in str(root.absolute()):
            raise ValueError("has a '%', which Slurm would take for a pattern of its own")
    except ValueError as error:  # it stands on #SBATCH lines, for the log files
        raise UsageError(f"run folder {str(root.absolute())!r} {error}") from None
    run = config.run.model_copy(update={"name": root.name, "root": str(root.parent.absolute())})
    config = config.model_copy(update={"run": run})
    snapshot = own_code(root.absolute())
    code = code_facts() | ({"snapshot": snapshot.facts()} if snapshot.facts() else {})
    blank: dict[str, Any] = {"chunk_size": 0, "data": {}, "model": {}}
    plan = Plan(
        run=root.name, job=job, shape=shape, rows=0 if table is None else len(table), chunks=len(chunks or ()),
        config_sha256=hashlib.sha256(dump(config).encode()).hexdigest(), code=code, created_at=time.time(),
        **blank | details,
    )  # fmt: skip
    paths = RunPaths(root.absolute())
    return Draft(paths, config, plan, table, chunks or [], snapshot, few_shot, validation, then_eval)


def _root(config: Config) -> Path:
    return Path(config.run.root).expanduser() if config.run.root else runs_root()


def _default_name(job: str, config: Config) -> str:
    parts = [job]
    if job != "script":
        parts += [Path(config.model.name).name or "model", config.task.name or Path(config.data.name).stem]
    safe = "-".join("".join(c if c.isalnum() and c.isascii() else "-" for c in part).strip("-") for part in parts)
    return f"{safe[:80]}-{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(2).hex()}"


def _try_first(prompts: Prompts, table: pa.Table) -> None:
    """Render one row here, not after hours of queueing."""
    for row in table.slice(0, 1).to_pylist():
        try:
            prompts.request(row, 0)
            prompts.target(user_row(row))
        except Exception as error:  # a template may raise anything
            raise DataError(f"the task's templates fail on the first row (id {row['id']!r}): {error}") from None
