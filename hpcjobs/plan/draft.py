"""Draft a run: its plan and all files to write, before anything is written or queued."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from hpcjobs import plugins
from hpcjobs.config.checks import ENGINES, checked_name, sbatch_word
from hpcjobs.config.resolve import dump
from hpcjobs.config.schema import Config
from hpcjobs.config.shape import Shape
from hpcjobs.engines.own_dtype import save_dtype
from hpcjobs.errors import DiskFullError, UsageError
from hpcjobs.metrics.registry import find_metrics, registered_names
from hpcjobs.metrics.revisions import revisions
from hpcjobs.plan.first_prompt import FirstPrompt
from hpcjobs.plan.model import fetched, model_folder
from hpcjobs.plan.named_engine import check_engine
from hpcjobs.plan.weights import check_trained, check_weights
from hpcjobs.run_folder.disk import disk_errors, whole_run
from hpcjobs.run_folder.files import (
    FOLDER_MODE,
    SHARED_FOLDER_MODE,
    make_folder,
    sync_folder,
    temporary_name,
    write_whole,
)
from hpcjobs.run_folder.inputs import table_parts
from hpcjobs.run_folder.job_kinds import BUILT_IN, find_kind
from hpcjobs.run_folder.ledger.chunks import Ints, write_chunks
from hpcjobs.run_folder.paths import RunPaths, runs_root
from hpcjobs.run_folder.plan import Plan, PlanData, PlanModel, PlanTrain
from hpcjobs.run_folder.planned import write_hashes
from hpcjobs.run_folder.provenance import code_facts
from hpcjobs.run_folder.snapshot import Snapshot


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A checked plan with everything that will be written, still in memory. `more` writes what its kind has beside."""

    paths: RunPaths
    config: Config
    plan: Plan
    table: pa.Table | None
    chunks: list[Ints]
    snapshot: Snapshot = field(default_factory=Snapshot)
    pool: pa.Table | None = None
    validation: pa.Table | None = None
    then_eval: str | None = None
    more: Callable[[RunPaths], None] | None = None
    first: FirstPrompt | None = None

    def write(self) -> None:
        """Create the run folder. A failure leaves no folder behind.

        A hub model that is not in the cache is downloaded first. Raises a UsageError if the folder exists, a
        ConfigError if the model cannot be downloaded, and a DiskFullError with the space that the whole run needs.
        """
        plan = self._with_model()
        inputs = self.table.nbytes if self.table is not None else 0
        need = inputs + whole_run(plan.rows, plan.chunks, inputs)
        with disk_errors(self.paths.root, need=need, next_command="the same command again"):
            self._make(plan)

    def _with_model(self) -> Plan:
        """The plan, when its model is here, with what could not be told before."""
        model = fetched(self.plan.model, self.config)
        if model == self.plan.model:
            return self.plan
        train = self.plan.train
        _check_model(self.config, train)
        if train.batches:
            train = dataclasses.replace(train, save_dtype=save_dtype(self.config, model_folder(self.config)))
        return dataclasses.replace(self.plan, model=model, train=train)

    def _make(self, plan: Plan) -> None:
        """Fill a temporary folder, and rename it when it is whole: a submit that is killed takes no name."""
        root, shared = self.paths.root, self.config.run.shared
        absent = [folder for folder in root.parents if not folder.exists()]
        make_folder(root.parent)
        for folder in [] if shared else absent:  # below a group's project folder too, only a shared run is the group's
            folder.chmod(FOLDER_MODE)
        temporary = RunPaths(temporary_name(root.with_name(root.name[:100])))
        try:
            temporary.root.mkdir(mode=FOLDER_MODE)
            temporary.root.chmod(SHARED_FOLDER_MODE if shared else FOLDER_MODE)
            self._fill(temporary, plan)
            sync_folder(temporary.root)
            os.rename(temporary.root, root)
        except BaseException as error:
            shutil.rmtree(temporary.root, ignore_errors=True)
            if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise UsageError(
                    f"run {root} exists: choose another --name, or go on with it: hpcjobs resume {plan.run}"
                ) from None
            if isinstance(error, DiskFullError) and error.path and error.path.is_relative_to(temporary.root):
                error.path = root / error.path.relative_to(temporary.root)
            raise
        sync_folder(root.parent)

    def _fill(self, paths: RunPaths, plan: Plan) -> None:
        for folder in (paths.inputs, paths.heartbeats, paths.ranks, paths.logs, paths.rendezvous):
            make_folder(folder)
        write_whole(paths.config, dump(self.config))
        if self.table is not None:
            write_whole(paths.data, table_parts(self.table))
        if self.plan.kind.unit == "answers":
            make_folder(paths.round(0))
            write_chunks(paths.chunks(0), self.chunks)
        if self.validation is not None:
            write_whole(paths.validation_data, table_parts(self.validation))
        if self.then_eval is not None:
            write_whole(paths.then_eval, self.then_eval)
        if self.pool is not None:
            write_whole(paths.few_shot, table_parts(self.pool))
        if self.more is not None:
            self.more(paths)
        self.snapshot.write(paths.code)
        if not self.plan.kind.program:
            write_hashes(paths)
        plan.write(paths.plan)


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
    chunk_size: int = 0,
    data: PlanData | None = None,
    model: PlanModel | None = None,
    train: PlanTrain | None = None,
    argv: Sequence[str] = (),
    notes: Sequence[str] = (),
    first: FirstPrompt | None = None,
) -> Draft:
    """The draft of a run of kind `job`, in `folder` or under the runs root.

    `own_code` copies the user's code, given the run folder. Raises a UsageError for a bad run name or folder, and for
    weights that cannot be right: whatever kind of job it is, its model is looked at here.
    """
    root = folder or _root(config) / (config.run.name or _default_name(job, config))
    checked_name(root.name, "run name")
    try:
        sbatch_word(str(root.absolute()))
        if "%" in str(root.absolute()):
            raise ValueError("has a '%', which Slurm would take for a pattern of its own")
    except ValueError as error:  # it stands on #SBATCH lines, for the log files
        raise UsageError(f"run folder {str(root.absolute())!r} {error}") from None
    if not find_kind(job).program:
        _check_model(config, train)
    run = config.run.model_copy(update={"name": root.name, "root": str(root.parent.absolute())})
    config = config.model_copy(update={"run": run})
    snapshot = own_code(root.absolute())
    packages = _packages(job, config) or None
    code = dataclasses.replace(
        code_facts(), snapshot=snapshot.facts(), packages=packages, revisions=_revisions(job, config) or None
    )
    plan = Plan(
        run=root.name, job=job, shape=shape, rows=0 if table is None else len(table), chunks=len(chunks or ()),
        config_sha256=hashlib.sha256(dump(config).encode()).hexdigest(), code=code, created_at=time.time(),
        chunk_size=chunk_size,
        data=data or PlanData(),
        model=model or PlanModel(),
        train=train or PlanTrain(),
        argv=list(argv),
        notes=list(notes),
    )  # fmt: skip
    paths = RunPaths(root.absolute())
    return Draft(
        paths=paths,
        config=config,
        plan=plan,
        table=table,
        chunks=chunks or [],
        snapshot=snapshot,
        pool=few_shot,
        validation=validation,
        then_eval=then_eval,
        first=first,
    )


def _check_model(config: Config, train: PlanTrain | None) -> None:
    """Raise a ConfigError if the model's weights or engine cannot be right, or a training cannot have them."""
    if train is not None and train.batches:
        check_trained(config)
    else:
        check_engine(config)
    check_weights(config)


def _packages(job: str, config: Config) -> dict[str, str]:
    """Names and versions of the installed packages that provide the run's metrics, engine and kind of job."""
    used = {
        plugins.METRICS: registered_names(config.task.metrics),
        plugins.ENGINES: [name for name in (config.model.engine,) if name not in ENGINES],
        plugins.JOBS: [name for name in (job,) if name not in BUILT_IN],
    }
    facts: dict[str, str] = {}
    for group, names in used.items():
        facts |= plugins.package_facts(group, names) if names else {}
    return facts


def _revisions(job: str, config: Config) -> dict[str, int]:
    """The numbers of the metrics' definitions; none for a job without metrics, or with those of lm_eval."""
    scored = find_kind(job).scored and config.task.type != "lm_eval"
    return revisions(config.task, find_metrics(config.task.metrics)) if scored else {}


def _root(config: Config) -> Path:
    return Path(config.run.root).expanduser() if config.run.root else runs_root()


def _default_name(job: str, config: Config) -> str:
    parts = [job]
    if not find_kind(job).program:
        parts += [Path(config.model.name).name or "model", config.task.name or Path(config.data.title).stem]
    safe = "-".join("".join(c if c.isalnum() and c.isascii() else "-" for c in part).strip("-") for part in parts)
    return f"{safe[:80]}-{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(2).hex()}"
