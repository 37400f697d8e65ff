"""Load lm_eval tasks: by name when planning, and from the run folder on the ranks."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hpcjobs.config import TaskConfig
from hpcjobs.errors import ConfigError, did_you_mean
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.snapshot import Snapshot
from hpcjobs.tasks.lmeval.seeded import seed, seeded
from hpcjobs.tasks.lmeval.task_data import TaskData
from hpcjobs.tasks.lmeval.user_files import UserFiles, UserTask, with_includes

if TYPE_CHECKING:
    from lm_eval.api.group import Group
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._index import Entry

log = logging.getLogger(__name__)
# The folder below the run's code/ from which ranks and merge load the task.
FOLDER = "lm_eval_task"


@dataclass(frozen=True)
class LoadedTask:
    """A task, group or tag of lm_eval: its tasks by name, and its groups. `path` is its YAML file, if named so."""

    name: str
    tasks: Mapping[str, Task]
    groups: Mapping[str, Group] = field(default_factory=dict)
    path: Path | None = None

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


@dataclass(frozen=True, kw_only=True)
class PlannedTask:
    """The content of task.json: what ranks and merge need to load the task again.

    `include` is the folder of the user's tasks within the copy of the user's files, `path` the task's YAML file there;
    empty if there is none.
    """

    name: str
    version: str
    tasks: list[str]
    library_folders: list[str]
    metrics: list[MetricName]
    include: str = "."
    path: str = ""

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

    `name` may be the path of a YAML file. Raises a ConfigError, also for errors in the task's own code.
    """
    manager = task_manager(tuple(map(str, folders)), library)
    path = None if name in manager.task_index else yaml_file(name)
    if path is None and name not in manager.task_index:
        places = [*map(str, folders), *(["lm_eval"] if library else [])]
        near = did_you_mean(name, manager.all_tasks)
        raise ConfigError(f"task.name: no task, group or tag {name!r} in {' or '.join(places)}{near}")
    try:
        title = name if path is None else _title(path)
        found = manager.load([name if path is None else str(path)])
    except Exception as error:  # a task's data set and code may raise anything
        raise ConfigError(f"task.name: lm_eval cannot load {name!r}: {type(error).__name__}: {error}") from error
    return LoadedTask(title, found["tasks"], found.get("groups", {}), path), manager.task_index


def task_manager(folders: tuple[str, ...], library: bool) -> TaskManager:
    """lm_eval's index of tasks. Its own 14,000 take half a minute: that index is kept for the process's next plan."""
    from lm_eval.tasks import TaskManager

    if library and not folders:
        return _library_manager()
    return TaskManager(include_path=list(folders), include_defaults=library)


@functools.cache
def _library_manager() -> TaskManager:
    from lm_eval.tasks import TaskManager

    return TaskManager()


def yaml_file(name: str) -> Path | None:
    """The YAML file that a task's name is the path of, as lm_eval takes it; None if it is none."""
    path = Path(name).expanduser().resolve()
    return path if path.suffix in (".yaml", ".yml") and path.is_file() else None


def _title(path: Path) -> str:
    from lm_eval.tasks._index import TaskIndex

    entry = TaskIndex.entry_from_path(path)
    if entry is None:
        raise ValueError("the file names no task and no group")
    return str(entry.name)


def find(name: str, include: Path | None) -> tuple[LoadedTask, Mapping[str, Entry]]:
    """`load` for a name that the user gives, with simple_evaluate's seeds. lm_eval's own 14,000 tasks are searched only
    if the user's files do not have it.
    """
    if include is not None and not include.is_dir():
        raise ConfigError(f"task.include_path: {include} is not a folder")
    if _is_own(name, include):
        try:
            return load(name, [include] if include else [], library=False)
        except ConfigError as error:  # a group of the user's may name tasks of the library
            log.info("%s; once more with lm_eval's own tasks", error)
            seed()
    return load(name, [include] if include else [], library=True)


def _is_own(name: str, include: Path | None) -> bool:
    from lm_eval.tasks import TaskManager

    if include is not None and name in TaskManager(include_path=str(include), include_defaults=False).task_index:
        return True
    return yaml_file(name) is not None


def load_planned(code: Path) -> LoadedTask:
    """The planned task of the run with this code/ folder.

    Raises a ConfigError if lm_eval's version or the tasks differ from those planned.
    """
    planned, data = _read(code)
    return load_copy(planned, data, code / FOLDER / "include")


def load_mended(code: Path, task: TaskConfig) -> tuple[LoadedTask, Path]:
    """The planned task by the user's files as they are now, and their folder; by code/ if there are none any more."""
    planned, data = _read(code)
    for place, name in ((task.include_path, planned.include), (task.name, planned.path)):
        if place and name and Path(place).exists():
            levels = len(Path(name).parts)
            top = Path(place) if not levels else Path(place).parents[levels - 1]
            return load_copy(planned, data, top), top
    return load_planned(code), code / FOLDER


def _read(code: Path) -> tuple[PlannedTask, TaskData]:
    planned, installed = PlannedTask.read(code), library_version()
    if installed != planned.version:
        raise ConfigError(f"the run was planned with lm_eval {planned.version}, and here is {installed}")
    return planned, TaskData.read(code / FOLDER / "data")


def load_copy(planned: PlannedTask, data: TaskData, copy: Path) -> LoadedTask:
    """The task from its data and the copy of the user's files, with simple_evaluate's seeds."""
    folders = [library() / folder for folder in planned.library_folders]
    folders += [copy / planned.include] if planned.include else []
    name = str(copy / planned.path) if planned.path else planned.name
    with seeded(), data.answering():
        loaded, _ = load(name, [folder for folder in folders if folder.is_dir()], library=False)
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


def user_task(loaded: LoadedTask, index: Mapping[str, Entry], include: Path | None) -> UserTask:
    """The user's files from which the task and its parts come."""
    top = library()
    paths = [getattr(index.get(name), "yaml_path", None) for name in (loaded.name, *loaded.tasks, *loaded.groups)]
    own = [Path(path).resolve() for path in paths if path is not None and not Path(path).is_relative_to(top)]
    _refuse_copies(own, include)
    return UserTask(include, loaded.path, with_includes(filter(None, [loaded.path, *own])))


def _refuse_copies(yamls: Iterable[Path], include: Path | None) -> None:
    """Raise a ConfigError for a task that lm_eval found in an earlier run's copy, which may be another one by now."""
    for path in yamls:
        runs = [folder for folder in path.parents if (folder / "plan.json").is_file()]
        if include is not None and runs and runs[-1].is_relative_to(include.resolve()):
            raise ConfigError(
                f"task.include_path: {include} has run folders, and lm_eval takes the task from the copy in one: {path}"
                "; keep runs in another folder (--run-dir, HPCJOBS_RUNS), or name the folder of the task alone"
            )


def snapshot(files: UserFiles, planned: PlannedTask, data: TaskData) -> Snapshot:
    """The files from which ranks and merge load the task, below code/. Files that are not YAML or Python are linked."""
    made = {"task.json": planned.json()} | {f"data/{name}": content for name, content in data.files().items()}
    copied = {f"include/{name}": content for name, content in files.copied.items()}
    return Snapshot(
        files={f"{FOLDER}/{name}": content for name, content in (made | copied).items()},
        links={f"{FOLDER}/include/{name}": target for name, target in files.links.items()},
        made=len(made),
    )
