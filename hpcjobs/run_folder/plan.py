"""plan.json: what a run will do, fixed when planning."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

import hpcjobs
from hpcjobs.config.shape import Shape
from hpcjobs.errors import NewerPlanError
from hpcjobs.run_folder.files import read_json, write_json
from hpcjobs.run_folder.job_kinds import JobKind, find_kind


@dataclass(frozen=True)
class _Part:
    """A section of plan.json. Missing fields have defaults; None is not written."""

    @classmethod
    def of(cls, values: Mapping[str, object]) -> Self:
        """The section with those values that it has fields for."""
        return cls(**{one.name: values[one.name] for one in fields(cls) if one.name in values})

    def values(self) -> dict[str, object]:
        """The section as JSON."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class PlanData(_Part):
    """The data set: rows, hashes and columns; for an lm_eval task also what that adds. Empty for a script."""

    name: str = ""
    rows: int = 0
    sha256: str = ""
    columns: list[str] = field(default_factory=list)
    few_shot_sha256: str | None = None
    lm_eval: str | None = None
    asks: Literal["generate", "choice", "perplexity"] | None = None
    tasks: list[str] | None = None

    def values(self) -> dict[str, object]:
        """The section as JSON values."""
        return super().values() if self.name else {}


@dataclass(frozen=True, kw_only=True)
class PlanModel(_Part):
    """The model and its engine, with a hash of its weights, or the cache and commit of a hub model.

    `files` are hashes of the folder's files by name (engines.fingerprint); earlier versions have none.
    """

    name: str = ""
    engine: str = ""
    revision: str | None = None
    dtype: str = "auto"
    likely_engine: str | None = None
    weights_sha256: str | None = None
    files: dict[str, str] | None = None
    cache: str | None = None
    commit: str | None = None

    def values(self) -> dict[str, object]:
        """The section as JSON values."""
        if not self.name:
            return {}
        hub = {"commit": self.commit} if self.cache is not None else {}  # null: it was not fetched yet
        return super().values() | {"revision": self.revision} | hub


@dataclass(frozen=True, kw_only=True)
class PlanSnapshot(_Part):
    """The user's code that was copied (`files` files), and what of it the ranks run; `note` is what was not copied.

    `command`: the ranks run a command, not Python. `meets_itself`: the program sets RANK and its like.
    """

    sha256: str | None = None
    files: int | None = None
    program: str | None = None
    module: str | None = None
    command: bool | None = None
    meets_itself: bool | None = None
    also: str | None = None
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class PlanCode(_Part):
    """The version of hpcjobs and Python, the folder, and the user's code that was copied.

    `packages`: for each name that an installed package adds, that package. `revisions`: the number of a metric's
    definition, if it is not the first.
    """

    hpcjobs: str = ""
    hpcjobs_sha256: str | None = None
    python: str = ""
    executable: str = ""
    cwd: str = ""
    user: str = ""
    host: str = ""
    commit: str | None = None
    dirty: bool | None = None
    packages: dict[str, str] | None = None
    revisions: dict[str, int] | None = None
    snapshot: PlanSnapshot = field(default_factory=PlanSnapshot)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The section from its values."""
        code = super().of(values)
        return replace(code, snapshot=PlanSnapshot.of(values.get("snapshot", {})))

    def values(self) -> dict[str, object]:
        """The section as JSON values."""
        copied = self.snapshot.values()
        others = {name: value for name, value in super().values().items() if name != "snapshot"}
        return others | ({"snapshot": copied} if copied else {})


@dataclass(frozen=True, kw_only=True)
class PlanTrain(_Part):
    """The batches and steps of a training as text, the type of its stored model, and the eval that follows, with its
    shape.

    `save_dtype` is None until the base model is here; earlier versions have none.
    """

    global_batch: int | None = None
    batches: str = ""
    steps: str = ""
    notes: list[str] = field(default_factory=list)
    then_eval: str | None = None
    then_eval_shape: str | None = None
    save_dtype: str | None = None

    def values(self) -> dict[str, object]:
        """The section as JSON values."""
        later = {"then_eval_shape", "save_dtype"}  # keys that earlier versions do not have
        return {name: one for name, one in vars(self).items() if one or name not in later} if self.batches else {}


# The format of plan.json. One above it is for runs that earlier programs must not touch.
VERSION = 1


def _check_version(path: Path, values: dict[str, Any]) -> None:
    version = values.get("version", 1)
    if isinstance(version, int) and version <= VERSION:
        return
    needs = values.get("code", {}).get("hpcjobs", "a later version")
    raise NewerPlanError(
        f"{path} has format {version}, and hpcjobs {hpcjobs.__version__} reads up to {VERSION}: the run needs hpcjobs "
        f"{needs} or later, which planned it"
    )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The content of plan.json: shape, chunking, and the hashes of data, model, config and code.

    `notes`: what is worth knowing about the data of an eval; also warnings of metrics.json. Earlier versions have none.
    """

    run: str
    job: str
    shape: Shape
    rows: int
    chunk_size: int
    chunks: int
    data: PlanData
    model: PlanModel
    config_sha256: str
    code: PlanCode
    created_at: float
    argv: list[str] = field(default_factory=list)
    train: PlanTrain = field(default_factory=PlanTrain)
    notes: list[str] = field(default_factory=list)
    version: int = VERSION

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Read plan.json. Raises a NewerPlanError if it is of a later format; further keys in this one do no harm."""
        values = read_json(path)
        _check_version(path, values)
        parts = {
            "shape": Shape(**values["shape"]), "data": PlanData.of(values["data"]),
            "model": PlanModel.of(values["model"]), "code": PlanCode.of(values["code"]),
            "train": PlanTrain.of(values.get("train", {})),
        }  # fmt: skip
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in (values | parts).items() if name in known})

    def write(self, path: Path) -> None:
        """Write plan.json."""
        parts = {name: getattr(self, name).values() for name in ("data", "model", "code", "train")}
        values = vars(self) | {"shape": dataclasses.asdict(self.shape)} | parts
        if not self.notes:  # a key that earlier versions do not have
            del values["notes"]
        write_json(path, values)

    @property
    def kind(self) -> JobKind:
        """The kind of its job."""
        return find_kind(self.job)

    def summary(self) -> list[str]:
        """The plan for people, in a few lines."""
        lines = [f"run     {self.run}", f"job     {self.job}: {self.shape}", *self._code_lines()]
        if self.kind.program:
            points = [f"points  {self.rows}: {self.data.name}"] if self.kind.unit == "answers" else []
            return [*lines, f"command {' '.join(self.argv)}", *points, *(f"note    {note}" for note in self.notes)]
        lines += self._model_lines() if self.model.name else []
        if self.kind.unit != "answers":
            lines += [f"data    {self.data.name}: {self.rows} rows"] if self.data.name else []
            return [*lines, *self._train_lines()] if self.train.batches else lines
        chunks = f"{self.chunks} chunks of at most {self.chunk_size}, smaller ones at the end"
        if self.chunks == self.rows:
            chunks = f"{self.chunks} chunks of one"
        lines.append(f"data    {self.data.name}: {self.rows} rows in {chunks}")
        return lines + [f"note    {note}" for note in self.notes]

    def _train_lines(self) -> list[str]:
        train = self.train
        lines = [f"batch   {train.global_batch} a step: {train.batches}", f"steps   {train.steps}"]
        lines.append(f"saved   in {train.save_dtype or 'the type of the base model'}")
        shape = f": {train.then_eval_shape}" if train.then_eval_shape else ""
        lines += [f"then    eval of model/ by {train.then_eval}{shape}"] if train.then_eval else []
        return lines + [f"note    {note}" for note in train.notes]

    def _code_lines(self) -> list[str]:
        snapshot = self.code.snapshot
        copied = [f"code    {snapshot.files} of your own files, as they are now"] if snapshot.files else []
        return copied + ([f"note    {snapshot.note}"] if snapshot.note else [])

    def _model_lines(self) -> list[str]:
        model = self.model
        likely = f": {model.likely_engine}" if model.likely_engine else ""
        plain = self.kind.unit == "steps" or model.engine == model.name
        engine = "" if plain else f" (engine {model.engine}{likely})"
        lines = [f"model   {model.name}{engine}"]
        if model.commit:
            lines.append(f"commit  {model.commit}")
        elif model.cache is not None:
            lines.append(f"note    not in the cache {model.cache}: would be fetched before anything is queued")
        return lines
