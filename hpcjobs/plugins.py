"""What installed packages add, by entry points: a metric, an engine or a kind of job under a name of its own.

Nothing is looked up for a name that hpcjobs has itself: packages are many, and reading them takes time.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hpcjobs.errors import ConfigError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

METRICS, ENGINES, JOBS = "hpcjobs.metrics", "hpcjobs.engines", "hpcjobs.jobs"


@functools.cache
def registered(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name, as installed packages declare them; a ConfigError where two share one.

    Source: packaging.python.org/specifications/entry-points.
    """
    from importlib.metadata import entry_points

    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise ConfigError(
                f"{point.name!r} is registered twice as {group}: {other.value} ({_package(other)}) and {point.value} "
                f"({_package(point)}); uninstall one of them"
            )
    return found


def load(group: str, name: str) -> Any:
    """What is registered in a group as `name`; a ConfigError where it cannot be imported. KeyError where nothing is."""
    point = registered(group)[name]
    try:
        return point.load()
    except Exception as error:  # another package's code may raise anything
        raise ConfigError(
            f"{name!r} of {_package(point)} ({group}) cannot be used: {point.value}: {type(error).__name__}: {error}"
        ) from error


def package_facts(group: str, names: Iterable[str]) -> dict[str, str]:
    """`name version` of the package that registers each of these names, by `group:name`; of others nothing."""
    return {f"{group}:{name}": _package(registered(group)[name]) for name in names if name in registered(group)}


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
