"""Split a data set over the ranks, and gather their results: on every rank, or an error on every rank."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from hpcjobs.distributed.results import check_sizes, listed, packed, unpacked
from hpcjobs.distributed.share import share_of
from hpcjobs.distributed.together import Peers, Said, check_same_data

T = TypeVar("T")


def split(peers: Peers | None, data: object) -> Any:
    """This rank's share of the data; all of it without peers. Raises a UsageError on every rank if one has other data,
    or what cannot be split.
    """
    if peers is None:
        return share_of(data, 0, 1).part
    step = "split_dataset"
    try:
        share = share_of(data, peers.rank, peers.world)
    except Exception as error:
        peers.exchange(Said.failed(step, error), error)
        raise
    check_same_data(peers.exchange(Said(step=step, rows=share.rows, samples=share.samples)))
    return share.part


def gather(peers: Peers | None, results: Iterable[T]) -> list[T]:
    """The results of all ranks in input order on rank 0; an empty list on the others.

    Raises a UsageError on every rank if their numbers do not fit, or one cannot be sent.
    """
    if peers is None:
        return listed(results)
    step = "gather_results"
    try:
        rows = listed(results)
        payload = packed(rows)
    except Exception as error:
        peers.exchange(Said.failed(step, error), error)
        raise
    said = peers.exchange(Said(step=step, rows=len(rows), size=len(payload)))
    check_sizes([each.rows or 0 for each in said])
    parts, failure, everything = peers.gather(said, payload), None, list[T]()
    try:
        everything = unpacked(parts)
    except Exception as error:
        failure = error
    peers.exchange(Said.failed(step, failure) if failure else Said(step=step), failure)
    return everything
