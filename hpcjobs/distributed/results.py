"""Results on their way to the main process: as a list, as bytes, and in input order again."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from hpcjobs.distributed.library_types import is_a, type_name
from hpcjobs.errors import UsageError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


def listed(results: Iterable[T]) -> list[T]:
    """One rank's results as a list; tensors are on the CPU.

    An array or tensor has a result in each row. Raises a UsageError for what has no results in an order.
    """
    if isinstance(results, str | bytes | bytearray | memoryview):
        raise _refused(results, "give a list with a result for each item: [text]")
    if isinstance(results, Mapping):
        raise _refused(results, "give a list with a result, such as a dict, for each item")
    if isinstance(results, set | frozenset):
        raise _refused(results, "it has no order: give a list in the order of split_dataset")
    if is_a(results, "pandas", "DataFrame"):
        raise _refused(results, "give its rows: frame.to_dict('records')")
    if is_a(results, "pyarrow", "Table", "RecordBatch"):
        raise _refused(results, "give its rows: table.to_pylist()")
    if is_a(results, "pyarrow", "Array", "ChunkedArray"):
        return list(results.to_pylist())  # type: ignore[attr-defined]
    try:
        rows = iter(results)
    except TypeError:  # None, a number, an array of no dimension
        raise _refused(results, "give a list with a result for each item") from None
    return [_on_cpu(row) for row in rows]


def _refused(results: object, then: str) -> UsageError:
    return UsageError(f"gather_results: cannot gather a {type_name(results)}: {then}")


def _on_cpu(value: Any) -> Any:
    """The value, with its tensors in lists, tuples and dicts on the CPU."""
    if is_a(value, "torch", "Tensor"):
        return _compact(value)
    if type(value) is dict:
        return {key: _on_cpu(one) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_on_cpu, value))
    return value


def _compact(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor on the CPU without what it is a view of: each row of a tensor would be sent with all the others."""
    tensor = tensor.detach().cpu()
    if tensor.is_sparse or tensor.is_quantized:
        return tensor
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size() else tensor


class _Pickler(pickle.Pickler):
    """Sends tensors compact and from the CPU, those within objects of any class too."""

    def reducer_override(self, value: Any) -> Any:
        if is_a(value, "torch", "Tensor"):
            reduced: object = _compact(value).__reduce_ex__(pickle.HIGHEST_PROTOCOL)  # type: ignore[no-untyped-call]
            return reduced
        return NotImplemented


def packed(rows: Sequence[object]) -> bytes:
    """Results as bytes. Raises a UsageError that names the first one that cannot be sent."""
    try:
        return _pickled(rows)
    except Exception as error:  # a class of the user's may raise anything
        place, why = next(((n, said) for n, row in enumerate(rows) if (said := _unsent(row))), (0, str(error)))
        raise UsageError(
            f"gather_results: result {place} of this rank, a {type_name(rows[place])}, cannot be sent to the main "
            f"process: {why}; give texts, numbers, lists, dicts, arrays or tensors"
        ) from error


def _pickled(value: object) -> bytes:
    file = io.BytesIO()
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(value)
    return file.getvalue()


def _unsent(row: object) -> str | None:
    """Why a result cannot be sent; None if it can."""
    try:
        _pickled(row)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def unpacked(payloads: Sequence[bytes]) -> list[Any]:
    """The results of all ranks in input order; none on ranks that got none. Raises a UsageError if they cannot be
    read.
    """
    parts = []
    for rank, payload in enumerate(payloads):
        try:
            parts.append(pickle.loads(payload))
        except Exception as error:
            raise UsageError(
                f"gather_results: the results of rank {rank} cannot be read on the main process "
                f"({type(error).__name__}: {error}): their class does not survive pickle"
            ) from error
    return interleave(parts)


def interleave(parts: Sequence[Sequence[T]]) -> list[T]:
    """The parts of ranks 0..W-1, as `split_dataset` makes them, in input order.

    Raises a UsageError if their sizes cannot come from one split.
    """
    check_sizes([len(part) for part in parts])
    total, world = sum(map(len, parts)), len(parts)
    return [parts[index % world][index // world] for index in range(total)]


def check_sizes(found: Sequence[int]) -> None:
    """Raise a UsageError unless numbers of results, by rank, can come from one split."""
    total, world = sum(found), len(found)
    sizes = [len(range(rank, total, world)) for rank in range(world)]
    if list(found) != sizes:
        raise UsageError(
            f"gather_results: ranks gave {list(found)} results where a split of {total} has {sizes}: each rank gives "
            "one result for each item of its split_dataset, None for an item without one"
        )
