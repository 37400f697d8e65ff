"""Engines that bring their own model: `dummy`, and those of installed packages."""

from __future__ import annotations

from typing import Any

from hpcjobs import plugins
from hpcjobs.config.checks import ENGINES
from hpcjobs.engines.base import OwnModelEngine
from hpcjobs.engines.dummy import DummyEngine
from hpcjobs.errors import ConfigError, UsageError


def registered_engine(name: str) -> Any:
    """The class that an installed package registers as `name`; None for the engines of hpcjobs."""
    if name in ENGINES:
        return None
    kind = plugins.load(plugins.ENGINES, name)
    if not callable(getattr(kind, "stream", None)):
        raise ConfigError(f"model.engine: {name!r} has no method stream(requests)")
    return kind


def own_model_engine(name: str) -> type[OwnModelEngine] | None:
    """The engine called `name`, if it has its own model (`from_config`); else None."""
    kind = DummyEngine if name == "dummy" else registered_engine(name)
    return kind if hasattr(kind, "from_config") else None


def check_task(engine: type[OwnModelEngine], name: str, task: str) -> None:
    """Raise a UsageError if an engine with its own model does not support this type of task."""
    tasks = getattr(engine, "tasks", ("generate",))
    if task not in tasks:
        raise UsageError(f"model.engine {name!r} does not do task.type {task}: it does {', '.join(tasks)}")
