"""Errors of a results.parquet that cannot be read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pyarrow as pa

from hpcjobs.errors import HpcJobsError
from hpcjobs.run_folder.paths import RunPaths


@contextlib.contextmanager
def readable(paths: RunPaths) -> Iterator[None]:
    """Errors of a damaged table in this block are HpcJobsErrors that name the file and how to make it anew."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        why = str(error).partition("\n")[0]
        raise HpcJobsError(f"{paths.results} cannot be read: {why}; next: hpcjobs merge {paths.root}") from error
