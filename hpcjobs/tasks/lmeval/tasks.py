"""Load lm_eval tasks: by name when planning, and from the run folder on the ranks."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from hpcjobs.errors import ConfigError, did_you_mean
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.snapshot import MAX_BYTES, MAX_FILES, Snapshot
from hpcjobs.tasks.lmeval.dataset_stub import DatasetStub

if TYPE_CHECKING:
    from lm_eval.api.group import Group
    from lm_eval.api.task import Task
    from lm_eval.tasks._index import Entry

log = logging.getLogger(__name__)
# The folder below the run's code/ from which ranks and merge load the task.
FOLDER = "lm_eval_task"
_COPIED = {".py", ".yaml", ".yml"}
_PASSED_OVER = {"__pycache__", ".ipynb_checkpoints"}


@dataclass(frozen=True)
class LoadedTask:
    """A task, group or tag of lm_eval: its tasks by name, and its groups."""

    name: str
    tasks: Mapping[str, Task]
    groups: Mapping[str, Group] = field(default_factory=dict)

    @property
    def group(self) -> Group | None:
        """The group of this name; None for a task or a tag."""
        return self.groups.get(self.name)


@dataclass(frozen=True)
class MetricName:
    """A metric that lm_eval reports for a task, as `metric,filter`; `aggregation` is the metric whose function
    aggregates it.
    """

    metric: str
    filter: str
    aggregation: str

    @property
    def text(self) -> str:
        """`metric,filter`."""
        return f"{self.metric},{self.filter}"


@dataclass(frozen=True)
class PlannedTask:
    """The content of task.json: what ranks and merge need to load the task again."""

    name: str
    version: str
    tasks: list[str]
    library_folders: list[str]
    metrics: list[MetricName]

    @classmethod
    def read(cls, code: Path) -> PlannedTask:
        """Read it from a run's code/ folder. Raises a ConfigError if there is none."""
        try:
            values = read_json(code / FOLDER / "task.json")
        except FileNotFoundError:
            raise ConfigError(
                f"{code / FOLDER} has no task.json: the run was planned without an lm_eval task"
            ) from None
        return cls(**values | {"metrics": [MetricName(**metric) for metric in values["metrics"]]})

    def json(self) -> bytes:
        """The content of task.json."""
        values = vars(self) | {"metrics": [vars(metric) for metric in self.metrics]}
        return (json.dumps(values, indent=2) + "\n").encode()


def library_version() -> str:
    """The version of the installed lm_eval. Raises a ConfigError if it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("lm_eval")
    except PackageNotFoundError:
        raise ConfigError("task.type lm_eval needs lm-evaluation-harness: pip install 'hpcjobs[lm_eval]'") from None


def load(name: str, folders: Sequence[Path], library: bool) -> tuple[LoadedTask, Mapping[str, Entry]]:
    """The task, group or tag from `folders` and, with `library`, from lm_eval's own; and the index of task names.

    Raises a ConfigError, also for errors in the task's own code.
    """
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=[str(folder) for folder in folders], include_defaults=library)
    if name not in manager.task_index:
        places = [*map(str, folders), *(["lm_eval"] if library else [])]
        near = did_you_mean(name, manager.all_tasks)
        raise ConfigError(f"task.name: no task, group or tag {name!r} in {' or '.join(places)}{near}")
    try:
        found = manager.load([name])
    except Exception as error:  # a task's data set and code may raise anything
        raise ConfigError(f"task.name: lm_eval cannot load {name!r}: {type(error).__name__}: {error}") from error
    return LoadedTask(name, found["tasks"], found.get("groups", {})), manager.task_index


def find(name: str, include: Path | None) -> tuple[LoadedTask, Mapping[str, Entry]]:
    """`load` for a name that the user gives. lm_eval's own 14,000 tasks are searched only if `include` does not have
    it.
    """
    if include is not None:
        if not include.is_dir():
            raise ConfigError(f"task.include_path: {include} is not a folder")
        from lm_eval.tasks import TaskManager

        if name in TaskManager(include_path=str(include), include_defaults=False).task_index:
            try:
                return load(name, [include], library=False)
            except ConfigError as error:  # a group of the user's may name tasks of the library
                log.info("%s; once more with lm_eval's own tasks", error)
    return load(name, [include] if include else [], library=True)


def load_planned(code: Path) -> LoadedTask:
    """The planned task of the run with this code/ folder, without its data set.

    Raises a ConfigError if lm_eval's version or the tasks differ from those planned.
    """
    planned, installed = PlannedTask.read(code), library_version()
    if installed != planned.version:
        raise ConfigError(f"the run was planned with lm_eval {planned.version}, and here is {installed}")
    folders = [library() / folder for folder in planned.library_folders] + [code / FOLDER / "include"]
    with DatasetStub.read(code / FOLDER / "data").answering():
        loaded, _ = load(planned.name, [folder for folder in folders if folder.is_dir()], library=False)
    if sorted(loaded.tasks) != planned.tasks:
        raise ConfigError(f"{planned.name} was planned with the tasks {planned.tasks} and has {sorted(loaded.tasks)}")
    return loaded


def library() -> Path:
    """The folder of lm_eval's own tasks."""
    import lm_eval.tasks

    return Path(lm_eval.tasks.__file__).parent


def library_folders(loaded: LoadedTask, index: Mapping[str, Entry]) -> list[str]:
    """The folders, relative to lm_eval's tasks, from which the task and its parts come."""
    top, folders = library(), set[str]()
    for name in {loaded.name, *loaded.tasks, *loaded.groups}:
        path = getattr(index.get(name), "yaml_path", None)
        if path is not None and Path(path).is_relative_to(top):
            folders.add(Path(path).parent.relative_to(top).as_posix())
    return sorted(folders)


def smallest_stub(full: DatasetStub, loaded: LoadedTask, again: Callable[[DatasetStub], LoadedTask]) -> DatasetStub:
    """The stub with the fewest first rows (a power of two) from which `again(stub)` makes the same tasks as `loaded`.

    A task's code may filter its rows, so one row is not always enough; all of them always are.
    """
    wanted, rows = _shapes(loaded), 1
    while rows < full.rows:
        stub = full.cut(rows)
        try:
            if _shapes(again(stub)) == wanted:
                return stub
        except Exception as error:  # too few rows for the task's own code
            log.debug("%d rows are too few for %s: %s", rows, loaded.name, error)
        rows *= 2
    return full


def _shapes(loaded: LoadedTask) -> dict[str, tuple[object, ...]]:
    """What a task has derived from its rows and its filters and metrics depend on."""
    names = ("features", "multiple_input", "multiple_target")
    return {name: tuple(getattr(task, each, None) for each in names) for name, task in loaded.tasks.items()}


def snapshot(include: Path | None, planned: PlannedTask, stub: DatasetStub, run: Path) -> Snapshot:
    """The files from which ranks and merge load the task, below code/. Files that are not YAML or Python are linked."""
    files = {"task.json": planned.json()} | {f"data/{name}": data for name, data in stub.files().items()}
    links: dict[str, str] = {}
    made = len(files)
    if include is not None:
        copied, links = _tree(include, run)
        files |= {f"include/{name}": data for name, data in copied.items()}
    return Snapshot(
        files={f"{FOLDER}/{name}": data for name, data in files.items()},
        links={f"{FOLDER}/include/{name}": target for name, target in links.items()},
        made=made,
    )


def _tree(folder: Path, run: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    """(YAML and Python files by name, the other files as links) of a folder, without the run folder."""
    files, links, size = dict[str, bytes](), dict[str, str](), 0
    for path, at in _walk(folder, PurePosixPath(), run):
        if path.suffix in _COPIED:
            files[str(at)] = path.read_bytes()
            size += len(files[str(at)])
        else:
            links[str(at)] = str(path)
        if size > MAX_BYTES or len(files) + len(links) > MAX_FILES:
            raise ConfigError(
                f"task.include_path: {folder} has more than {MAX_FILES:,} files or {MAX_BYTES // 1_000_000} MB of YAML "
                "and Python: name the folder of the task alone"
            )
    return files, links


def _walk(folder: Path, at: PurePosixPath, run: Path) -> Iterable[tuple[Path, PurePosixPath]]:
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = folder / entry.name
        if entry.name in _PASSED_OVER or entry.name.startswith(".") or path.resolve() == run:
            continue
        if entry.is_dir():
            if not (path / "plan.json").exists():  # a run folder
                yield from _walk(path, at / entry.name, run)
        elif entry.is_file():
            yield path.absolute(), at / entry.name
