"""Entry points of installed packages: metrics, engines and kinds of jobs.

They are not searched for names of hpcjobs' own, since reading the metadata of all packages takes time.
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
    """The entry points of a group by name. Raises a ConfigError if two packages share one.

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
    """The object registered in a group as `name`. Raises a ConfigError if it cannot be imported, and a KeyError if
    there is none.
    """
    point = registered(group)[name]
    try:
        return point.load()
    except Exception as error:  # another package's code may raise anything
        raise ConfigError(
            f"{name!r} of {_package(point)} ({group}) cannot be used: {point.value}: {type(error).__name__}: {error}"
        ) from error


def package_facts(group: str, names: Iterable[str]) -> dict[str, str]:
    """`name version` of the package that registers each of these names, by `group:name`; without names of hpcjobs' own.
    """
    return {f"{group}:{name}": _package(registered(group)[name]) for name in names if name in registered(group)}


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
