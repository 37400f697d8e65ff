"""Rounds: close one, so that no late writer changes its results, and open the next with the missing samples."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from hpcjobs.errors import DiskFullError, HpcJobsError
from hpcjobs.run_folder.files import make_folder
from hpcjobs.run_folder.ledger.chunks import ChunkList, Ints, plan_chunks, write_chunks
from hpcjobs.run_folder.ledger.claims import Claims, Lease
from hpcjobs.run_folder.ledger.takeover import whole_samples
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity

log = logging.getLogger(__name__)


def close_round(paths: RunPaths, number: int, deterministic: bool) -> None:
    """Close every chunk that is not done. Safe to run twice, and while ranks are still running."""
    claims, chunks = Claims(paths.round(number)), ChunkList.read(paths.chunks(number))
    listing = claims.list()
    for chunk in sorted(set(range(len(chunks))) - listing.settled):
        _close_chunk(paths, claims, chunk, set(chunks[chunk]), deterministic)


def _close_chunk(paths: RunPaths, claims: Claims, chunk: int, members: set[int], deterministic: bool) -> None:
    """Take the chunk over until this lease is the highest, then fix which samples count."""
    closer = Lease(
        chunk=chunk, generation=0, attempt="closer", rank=0, host="closer", journal="", identity=Identity.own()
    )
    while True:
        top, settled = claims.kinds(chunk)
        if settled:
            return
        former = () if top < 0 or deterministic else whole_samples(claims.read_lease(chunk, top), paths.ranks, members)
        ours = replace(closer, generation=top + 1, former=former)
        if claims.lease(ours):
            claims.close(ours)
            return


def open_round(
    paths: RunPaths, number: int, missing: Iterable[int], chunk_size: int, deterministic: bool, again: bool = False
) -> None:
    """Open round `number` with the missing samples. Raises an HpcJobsError if another resume was first.

    With `again`, the samples of this round have records, which do not count from now on.
    """
    make_folder(paths.round(number))
    chunks, path = _next_chunks(paths, number, set(missing), chunk_size, deterministic), paths.chunks(number)
    try:
        opened = write_chunks(path, chunks, again)
    except DiskFullError:
        if path.exists() and not path.stat().st_size:  # possible only where there are no hard links
            path.unlink()  # a round exists when this file does
        raise
    if not opened:
        raise HpcJobsError(f"round {number} of {paths.root} was opened by another resume: see hpcjobs status")


def _next_chunks(
    paths: RunPaths, number: int, missing: set[int], chunk_size: int, deterministic: bool
) -> Sequence[Sequence[int] | Ints]:
    """The missing samples in planned order; with `deterministic`, the planned chunks as a whole."""
    planned = ChunkList.read(paths.chunks(0))
    if deterministic:
        return [chunk for chunk in (planned[n] for n in range(len(planned))) if not missing.isdisjoint(chunk)]
    order = planned.indexes[np.isin(planned.indexes, np.fromiter(missing, np.int64))].astype(np.int64)
    return [order[places] for places in plan_chunks(np.zeros(len(order), np.int64), chunk_size)]
