"""This process's share of a data set: rows r, r+W, r+2W... for rank r of W, of whatever kind the data is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpcjobs.distributed.library_types import is_a, type_name
from hpcjobs.distributed.row_samples import digest, sampled, sampled_places
from hpcjobs.errors import UsageError

TAKEN = (
    "a list or another sequence, an iterable, a dict of columns, an array or tensor, a pandas, pyarrow or `datasets` "
    "table, or a data set of torch"
)


@dataclass(frozen=True)
class Share:
    """One rank's `part` of the data, and what ranks compare of the whole: its number of rows (None: a stream, not
    counted), and digests of some rows by their numbers.
    """

    part: Any
    rows: int | None
    samples: Mapping[int, str]


def share_of(data: Any, rank: int, world: int) -> Share:
    """The share of `rank` among `world`. No padding, no duplicates; sizes differ by at most one.

    Tables, arrays and tensors stay what they are, as does a dict of columns; streams of `datasets` and torch stay
    streams, and a torch Dataset becomes a Subset. Sequences and iterables become a list. Raises a UsageError for what
    has no rows in an order.
    """
    _check_kind(data)
    mine = slice(rank, None, world)
    if is_a(data, "datasets", "IterableDataset"):
        return Share(data.filter(_Every(rank, world), with_indices=True), None, {})
    if is_a(data, "torch.utils.data", "IterableDataset"):
        from hpcjobs.distributed.stream_part import StreamPart

        return Share(StreamPart(data, rank, world), None, {})
    if is_a(data, "torch.utils.data", "Dataset"):
        return _subset(data, mine)
    if isinstance(data, Mapping):
        return _columns(data, mine)
    if (take := _taker(data)) is not None:
        return _taken(len(data), take, mine)
    if hasattr(data, "__len__") and hasattr(data, "__getitem__"):
        return _items(data, mine)
    if hasattr(data, "__iter__"):
        return _read(data, mine)
    raise _refused(data)


def table_rows(data: object) -> list[Any]:
    """The rows of data that `share_of` splits, those of tables and dicts of columns as dicts.

    Raises a UsageError for what has no rows in an order.
    """
    whole = share_of(data, 0, 1).part
    if isinstance(whole, Mapping):
        return [dict(zip(whole, row, strict=True)) for row in zip(*whole.values(), strict=True)]
    if is_a(whole, "pandas", "DataFrame"):
        return list(whole.to_dict("records"))
    return list(whole.to_pylist() if hasattr(whole, "to_pylist") else whole)


def _check_kind(data: object) -> None:
    """Raise a UsageError for what would be split into something else than its rows."""
    if is_a(data, "datasets", "DatasetDict", "IterableDatasetDict"):
        splits = ", ".join(map(repr, data))  # type: ignore[call-overload]
        raise _refused(data, f"name one of its splits ({splits})")
    if is_a(data, "torch.utils.data", "DataLoader"):
        raise _refused(data, "pass its `dataset`; for a loop over batches: connector.accelerator.prepare(loader)")
    if isinstance(data, str | bytes | bytearray | memoryview):
        raise _refused(data, "it would be split into its characters: pass [text], or text.splitlines()")
    if isinstance(data, set | frozenset):
        raise _refused(data, "its order differs between processes: pass sorted(...)")
    if isinstance(data, os.PathLike):
        raise _refused(data, "read it first: hpcjobs.runner.load_validation_data(path)")
    if isinstance(data, type) or (callable(data) and not hasattr(data, "__iter__")):
        raise _refused(data, "call it, and pass what it gives")
    if hasattr(data, "__arrow_c_stream__") and _taker(data) is None and not is_a(data, "datasets", "Dataset"):
        raise _refused(data, "pass pyarrow.table(...) of it")


def _refused(data: object, then: str = "") -> UsageError:
    return UsageError(f"split_dataset: cannot split a {type_name(data)}: {then or f'it takes {TAKEN}'}")


def _taker(data: Any) -> Callable[[range], Any] | None:
    """How rows are taken from a table, array or sequence that keeps its kind, or has a quick way; else None."""
    if is_a(data, "datasets", "Dataset"):
        return lambda places: data.select(places)
    if is_a(data, "pandas", "DataFrame", "Series"):
        return lambda places: data.iloc[_slice(places)]
    if is_a(data, "pyarrow", "Table", "RecordBatch", "Array", "ChunkedArray"):
        import pyarrow as pa

        return lambda places: data.take(pa.array(places, pa.int64()))  # an empty list would have no type
    if is_a(data, "numpy", "ndarray") or is_a(data, "torch", "Tensor"):
        if not data.ndim:
            raise UsageError("split_dataset: cannot split a number: an array or tensor has its rows in dimension 0")
        return lambda places: data[_slice(places)]
    if is_a(data, "pandas", "Index"):
        return lambda places: data[_slice(places)]
    if isinstance(data, list | tuple | range):
        return lambda places: list(data[_slice(places)])
    return None


def _slice(places: range) -> slice:
    return slice(places.start, max(places.stop, 0), places.step)


def _taken(count: int, take: Callable[[range], object], mine: slice) -> Share:
    samples = {place: digest(take(range(place, place + 1))) for place in sampled_places(count)}
    return Share(take(range(count)[mine]), count, samples)


def _columns(data: Mapping[Any, Any], mine: slice) -> Share:
    """A dict of columns, each a list, array, tensor or table column of the same length."""
    for name, column in data.items():
        if isinstance(column, Mapping | str | bytes | set | frozenset) or not _has_rows(column):
            raise UsageError(
                f"split_dataset: {name!r} of a dict is a {type(column).__name__}, not a column: a dict has a list, "
                "array or tensor for each column; rows are passed as a list of dicts"
            )
    lengths = {name: len(column) for name, column in data.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name!r} {length}" for name, length in lengths.items())
        raise UsageError(f"split_dataset: the columns of a dict have different numbers of rows: {said}")
    shares = {name: share_of(column, mine.start, mine.step) for name, column in data.items()}
    count = next(iter(lengths.values()), 0)
    places = {place for share in shares.values() for place in share.samples}
    samples = {place: ",".join(share.samples[place] for share in shares.values()) for place in sorted(places)}
    return Share({name: share.part for name, share in shares.items()}, count, samples)


def _has_rows(column: Any) -> bool:
    try:
        return len(column) >= 0
    except TypeError:  # no length, or an array of no dimension
        return False


def _subset(data: Any, mine: slice) -> Share:
    """A part of a torch Dataset, whose items are not read. They may be random, so none is compared."""
    from torch.utils.data import Subset

    if not hasattr(data, "__len__"):
        raise _refused(data, "it has no __len__, so its items cannot be shared out; an IterableDataset can")
    count = len(data)
    return Share(Subset(data, range(count)[mine]), count, {})


def _items(data: Any, mine: slice) -> Share:
    """A list of items. Those of what is no Sequence may be made anew each time, so none is compared."""
    try:
        count = len(data)
    except TypeError:
        raise _refused(data) from None
    if isinstance(data, Sequence):
        return _taken(count, lambda places: [data[place] for place in places], mine)
    return Share([data[place] for place in range(count)[mine]], count, {})


def _read(data: Iterable[Any], mine: slice) -> Share:
    """An iterable, read to its end; only this rank's rows are kept."""
    part, samples, count = [], dict[int, str](), 0
    for place, row in enumerate(data):
        count += 1
        if place % mine.step == mine.start:
            part.append(row)
        if sampled(place):
            samples[place] = digest([row])
    return Share(part, count, samples)


@dataclass(frozen=True)
class _Every:
    """Whether a row of a stream is this rank's; a class, so that worker processes of a DataLoader get it too."""

    rank: int
    world: int

    def __call__(self, row: object, place: int) -> bool:
        return place % self.world == self.rank
