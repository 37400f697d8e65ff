"""ls: what can be named in a config."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hpcjobs import plugins
from hpcjobs.assets import ASSETS, asset_names
from hpcjobs.config.checks import ENGINES
from hpcjobs.config.resolve import defaults_folder
from hpcjobs.config.schema import Config, TaskConfig
from hpcjobs.errors import UsageError, did_you_mean
from hpcjobs.metrics import BUILT_IN, OVER_REPEATS

_ENGINES = {
    "auto": "the fastest that knows the model", "transformers": "continuous batching of transformers, on GPUs",
    "loop": "hpcjobs' own decode loop", "generate": "transformers' generate, for any model",
    "dummy": "no model: answers with a hash of the prompt",
}  # fmt: skip
_REPEATED = {"pass@k": "whether one of k answers is right (task.repeats)", "majority": "the answer that most agree on"}
_TASKS = {
    "generate": "a prompt is answered in words", "choice": "the likeliest of several options",
    "perplexity": "the likelihood of a text", "lm_eval": "a task of lm-evaluation-harness (task.name)",
}  # fmt: skip


@dataclass(frozen=True)
class Name:
    """A name, and what it stands for, in a few words."""

    name: str
    what: str


def names(kind: str) -> list[Name]:
    """What can be named, of a kind (`KINDS`). Raises a UsageError for another."""
    if kind not in KINDS:
        raise UsageError(f"no list of {kind!r}{did_you_mean(kind, KINDS)}; there are {', '.join(KINDS)}")
    return list(KINDS[kind]())


def _metrics() -> Iterator[Name]:
    for name, metric in BUILT_IN.items():
        yield Name(name, f"{_first_line(metric)} For {', '.join(metric.tasks)}.")
    yield from (Name(name, _REPEATED[name]) for name in OVER_REPEATS)
    yield from _registered(plugins.METRICS)
    yield Name("package.module:Class", "a metric of your own")


def _engines() -> Iterator[Name]:
    yield from (Name(name, _ENGINES[name]) for name in ENGINES)
    yield from _registered(plugins.ENGINES)


def _registered(group: str) -> Iterator[Name]:
    facts = plugins.package_facts(group, plugins.registered(group))
    yield from (Name(name.removeprefix(f"{group}:"), f"of {package}") for name, package in facts.items())


def _data() -> Iterator[Name]:
    yield from (Name(name, "ships with hpcjobs") for name in asset_names())
    yield Name("FILE or FOLDER", "CSV, JSON, JSON Lines, Parquet or Arrow; several by *")
    yield Name("owner/name", "a data set of the hub")


def _models() -> Iterator[Name]:
    for folder in sorted(ASSETS.iterdir()):
        if (folder / "config.json").is_file():
            yield Name(folder.name, "ships with hpcjobs")
    yield from (Name(name, "in the hub cache of this machine") for name in _cached())
    yield Name("FOLDER", "a model in transformers' format")
    yield Name("owner/name", "a model of the hub")


def _cached() -> list[str]:
    """The models in the hub cache, which need no network."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        return sorted(repo.repo_id for repo in scan_cache_dir().repos if repo.repo_type == "model")
    except CacheNotFound:
        return []


def _profiles() -> Iterator[Name]:
    """Those here, then those that ship, as far as none here has the name."""
    found: dict[str, Path] = {}
    for folder in (Path("configs/clusters"), defaults_folder() / "clusters"):
        for file in sorted(folder.glob("*.yaml")):
            found.setdefault(file.stem, file)
    yield from (Name(name, str(file)) for name, file in found.items())


def _tasks() -> Iterator[Name]:
    """The types of tasks, and the tasks of lm_eval's library where it is installed."""
    kinds = get_args(TaskConfig.model_fields["type"].annotation)
    yield from (Name(kind, f"task.type: {_TASKS[kind]}") for kind in kinds)
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        return
    manager = TaskManager()
    groups = set(manager.all_groups)
    for name in sorted(manager.all_tasks):
        yield Name(name, "a group of lm_eval's" if name in groups else "a task of lm_eval's")


def _keys() -> Iterator[Name]:
    yield from _keys_of(Config, "")


def _keys_of(model: type[BaseModel], prefix: str) -> Iterator[Name]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _keys_of(inner, f"{prefix}{name}.")
        else:
            yield Name(f"{prefix}{name}", _default(field))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "default: none" if value is None else f"default: {value!r}"


def _first_line(metric: type[object]) -> str:
    return (inspect.getdoc(metric) or "").partition("\n")[0]


KINDS: dict[str, Callable[[], Iterator[Name]]] = {
    "metrics": _metrics, "tasks": _tasks, "data": _data, "models": _models, "engines": _engines,
    "profiles": _profiles, "keys": _keys,
}  # fmt: skip
