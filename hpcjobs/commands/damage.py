"""Name the files of a run that cannot be read, where a reader has said only what is wrong, or has not met them yet."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from hpcjobs.config.resolve import read_config
from hpcjobs.errors import HpcJobsError, MergeError
from hpcjobs.run_folder.job_kinds import Unit
from hpcjobs.run_folder.journal.journal import broken
from hpcjobs.run_folder.journal.parse_lines import lines_of
from hpcjobs.run_folder.journal.record import Record
from hpcjobs.run_folder.ledger.chunks import read_sizes
from hpcjobs.run_folder.ledger.claims import Claims, Counted
from hpcjobs.run_folder.metrics_file import MetricsFile
from hpcjobs.run_folder.paths import RunPaths, find_run
from hpcjobs.run_folder.plan import Plan
from hpcjobs.run_folder.submission import read_launches

# What a look at a run may read of its journals and its ledger.
_MOST_BYTES, _MOST_FILES = 1 << 24, 10_000
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


def damage_notes(paths: RunPaths, plan: Plan) -> list[str]:
    """What a merge will stop at: the first broken line of a journal, and the first broken file of the ledger.

    Of journals of many megabytes the beginnings are read, and of a large ledger the first files.
    """
    checks = [functools.partial(_check_journals, paths, plan.kind.unit)]
    if plan.kind.unit == "answers":
        checks.append(functools.partial(_check_done, paths))
    notes = list[str]()
    for check in checks:
        try:
            check()
        except MergeError as error:
            notes.append(str(error))
    return notes


def _check_journals(paths: RunPaths, unit: Unit) -> None:
    """Raise a MergeError for a line that is no record, or in a journal of steps no JSON."""
    journals = paths.journals()
    for path in journals:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES // len(journals))
        for offset, line in lines_of(0, content[: content.rfind(b"\n") + 1]):
            try:
                Record.parse(line) if unit == "answers" else json.loads(line)
            except ValueError as error:
                raise broken(path, offset, error) from None


def _check_done(paths: RunPaths) -> None:
    """Raise a MergeError for a file that ends a chunk and is no JSON object; an empty one is its creator's death."""
    folder = paths.round(paths.rounds()[-1])
    for chunk in itertools.islice(Claims(folder).list().done, _MOST_FILES):
        path = folder / f"{chunk}.done"
        if content := path.read_bytes():
            try:
                values = json.loads(content)
                Counted(values["chunk"], values["journal"], values["generation"], tuple(values["former"]))
            except (ValueError, LookupError, TypeError) as error:
                raise MergeError(
                    f"{path}: broken claim file: {error}; no crash does that: look at the disk; next: hpcjobs merge "
                    f"{paths.root}"
                ) from None


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
