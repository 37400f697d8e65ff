"""Name the file of a run that cannot be read, where a reader has said only what is wrong with it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from hpcjobs.config.resolve import read_config
from hpcjobs.errors import HpcJobsError
from hpcjobs.run_folder.ledger.chunks import read_sizes
from hpcjobs.run_folder.ledger.claims import Claims
from hpcjobs.run_folder.metrics_file import MetricsFile
from hpcjobs.run_folder.paths import RunPaths, find_run
from hpcjobs.run_folder.plan import Plan
from hpcjobs.run_folder.submission import read_launches

# What readers of damaged files raise. An HpcJobsError names its file already.
_WRONG = (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError)


class DamagedError(HpcJobsError):
    """A file of a run cannot be read; the message names it."""


@contextlib.contextmanager
def naming(paths: RunPaths) -> Iterator[None]:
    """Errors of damaged files in this block are DamagedErrors that name the file."""
    try:
        yield
    except HpcJobsError:
        raise
    except _WRONG as error:
        path, why = _culprit(paths) or (paths.root, _words(error))
        raise DamagedError(f"{path} cannot be read: {why}") from error


def explanation(names: Iterable[str]) -> str | None:
    """What cannot be read of the first damaged one of these runs; names of no runs are passed over."""
    for name in names:
        with contextlib.suppress(HpcJobsError, OSError):
            if found := _culprit(find_run(name)):
                return f"{found[0]} cannot be read: {found[1]}"
    return None


def is_changed(paths: RunPaths, plan: Plan) -> bool:
    """Whether config.yaml has other bytes than those that were planned. Raises a DamagedError if it is empty."""
    data = paths.config.read_bytes()
    if not data.strip():
        raise DamagedError(f"{paths.config} cannot be read: it is empty")
    return hashlib.sha256(data).hexdigest() != plan.config_sha256


def _culprit(paths: RunPaths) -> tuple[Path, str] | None:
    """The first file that its own reader refuses, and why; None if each can be read alone."""
    readers: list[tuple[Path, Callable[[], Any]]] = [
        (paths.plan, lambda: Plan.read(paths.plan)),
        (paths.config, lambda: read_config(paths.config)),
        (paths.submission, lambda: read_launches(paths)),
        (paths.metrics, lambda: MetricsFile.read(paths.metrics) if paths.metrics.exists() else None),
    ]
    for number in paths.rounds():
        readers.append((paths.chunks(number), functools.partial(read_sizes, paths.chunks(number))))
        readers.append((paths.round(number), functools.partial(_check_claims, paths, number)))
    for path, read in readers:
        try:
            read()
        except HpcJobsError as error:
            return path, str(error)
        except _WRONG as error:
            return path, _words(error)
    return None


def _check_claims(paths: RunPaths, number: int) -> None:
    chunks, done = len(read_sizes(paths.chunks(number))), Claims(paths.round(number)).list().done
    if strange := [chunk for chunk in done if chunk >= chunks]:
        raise ValueError(f"has {strange[0]}.done, and the round has {chunks} chunks: it is of another run")


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
