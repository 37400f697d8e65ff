"""Kinds of data and results that the connector takes, with their rows in plain Python, and kinds that it refuses."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

ROWS = 7
TEXTS = [f"item {n}" for n in range(ROWS)]
DICTS = [{"text": text, "n": n} for n, text in enumerate(TEXTS)]
COLUMNS: dict[str, Any] = {"text": TEXTS, "n": list(range(ROWS))}


class Good(NamedTuple):
    """Data, the plain rows that it has, and the plain rows of a part of it."""

    data: Callable[[], Any]
    rows: list[Any]
    plain: Callable[[Any], list[Any]] = list


class Bad(NamedTuple):
    """Data that cannot be split, and a part of what the error says."""

    data: Callable[[], Any]
    says: str


def good_kinds() -> dict[str, Good]:
    """What split_dataset takes."""
    import datasets
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import torch
    from torch.utils.data import IterableDataset, Subset, TensorDataset

    class Stream(IterableDataset[str]):
        def __iter__(self) -> Iterator[str]:
            return iter(TEXTS)

    class Words(torch.utils.data.Dataset[str]):
        def __len__(self) -> int:
            return ROWS

        def __getitem__(self, place: int) -> str:
            return TEXTS[place]

    def generate() -> Iterator[str]:
        yield from TEXTS

    numbers = list(range(ROWS))
    frame = pd.DataFrame(COLUMNS, index=[f"label {n}" for n in range(ROWS)])
    ragged: list[Any] = [[1], [], [2, [3, 4]], "x", None, [5], {}]
    return {
        "list": Good(lambda: TEXTS, TEXTS),
        "list of dicts": Good(lambda: DICTS, DICTS),
        "ragged list": Good(lambda: ragged, ragged),
        "empty list": Good(list, []),
        "fewer rows than ranks": Good(lambda: TEXTS[:1], TEXTS[:1]),
        "tuple": Good(lambda: tuple(TEXTS), TEXTS),
        "range": Good(lambda: range(ROWS), numbers),
        "deque": Good(lambda: collections.deque(TEXTS), TEXTS),
        "dict views": Good(lambda: dict.fromkeys(TEXTS).keys(), TEXTS),
        "dict of columns": Good(lambda: COLUMNS, DICTS, _by_column),
        "dict of no columns": Good(dict, [], _by_column),
        "dict of tensors": Good(
            lambda: {"n": torch.arange(ROWS), "x": torch.arange(2 * ROWS).reshape(ROWS, 2)},
            [{"n": n, "x": [2 * n, 2 * n + 1]} for n in numbers],
            lambda part: _by_column({name: column.tolist() for name, column in part.items()}),
        ),
        "numpy array": Good(
            lambda: np.arange(2 * ROWS).reshape(ROWS, 2), [[2 * n, 2 * n + 1] for n in numbers], _tolist
        ),
        "numpy array of texts": Good(lambda: np.array(TEXTS), TEXTS, _tolist),
        "numpy array of objects": Good(lambda: np.array([*ragged, 0], dtype=object)[:ROWS], ragged, _tolist),
        "torch tensor": Good(lambda: torch.arange(ROWS), numbers, _tolist),
        "pandas DataFrame": Good(lambda: frame, DICTS, lambda part: part.to_dict("records")),
        "pandas Series": Good(lambda: frame["text"], TEXTS, _tolist),
        "pandas Series with labels that are numbers": Good(
            lambda: pd.Series(TEXTS, index=numbers[::-1]), TEXTS, _tolist
        ),
        "pandas Index": Good(lambda: pd.Index(TEXTS), TEXTS, _tolist),
        "pyarrow Table": Good(lambda: pa.table(COLUMNS), DICTS, lambda part: part.to_pylist()),
        "pyarrow RecordBatch": Good(lambda: pa.RecordBatch.from_pylist(DICTS), DICTS, lambda part: part.to_pylist()),
        "pyarrow ChunkedArray": Good(lambda: pa.chunked_array([TEXTS[:3], TEXTS[3:]]), TEXTS, lambda p: p.to_pylist()),
        "pyarrow Table without rows": Good(lambda: pa.table(COLUMNS)[:0], [], lambda part: part.to_pylist()),
        "pyarrow Table of one row": Good(lambda: pa.table(COLUMNS)[:1], DICTS[:1], lambda part: part.to_pylist()),
        "pandas DataFrame of one row": Good(lambda: frame[:1], DICTS[:1], lambda part: part.to_dict("records")),
        "datasets.Dataset of one row": Good(lambda: datasets.Dataset.from_dict(COLUMNS).select([0]), DICTS[:1]),
        "datasets.Dataset": Good(lambda: datasets.Dataset.from_dict(COLUMNS), DICTS),
        "empty datasets.Dataset": Good(lambda: datasets.Dataset.from_dict({"text": [], "n": []}), []),
        "shuffled datasets.Dataset": Good(
            lambda: datasets.Dataset.from_dict(COLUMNS).shuffle(seed=3),
            datasets.Dataset.from_dict(COLUMNS).shuffle(seed=3).to_list(),
        ),
        "column of a datasets.Dataset": Good(lambda: datasets.Dataset.from_dict(COLUMNS)["text"], TEXTS),
        "datasets.IterableDataset": Good(
            lambda: datasets.Dataset.from_dict(COLUMNS).to_iterable_dataset(num_shards=3), DICTS
        ),
        "datasets.IterableDataset of torch": Good(
            lambda: datasets.Dataset.from_dict(COLUMNS).to_iterable_dataset().with_format("torch"), DICTS,
            lambda part: [{"text": row["text"], "n": int(row["n"])} for row in part],
        ),
        "torch Dataset": Good(Words, TEXTS),
        "torch TensorDataset": Good(
            lambda: TensorDataset(torch.arange(ROWS)), numbers, lambda part: [int(row[0]) for row in part]
        ),
        "torch Subset": Good(lambda: Subset(Words(), range(1, ROWS)), TEXTS[1:]),
        "torch IterableDataset": Good(Stream, TEXTS),
        "generator": Good(generate, TEXTS),
        "iterator": Good(lambda: iter(TEXTS), TEXTS),
        "map object": Good(lambda: map(str.upper, TEXTS), [text.upper() for text in TEXTS]),
        "zip object": Good(lambda: zip(TEXTS, numbers, strict=True), [*zip(TEXTS, numbers, strict=True)]),
    }  # fmt: skip


def bad_kinds(rank: int) -> dict[str, Bad]:
    """What split_dataset refuses on every rank: of a kind, or where ranks pass other data."""
    import datasets
    import pandas as pd
    import pyarrow as pa
    import torch
    from torch.utils.data import DataLoader, Dataset

    class NoLength(Dataset[str]):
        def __getitem__(self, place: int) -> str:
            return TEXTS[place]

    table = datasets.Dataset.from_dict(COLUMNS)
    return {
        "bare string": Bad(lambda: "item 0", "cannot split a str: it would be split into its characters"),
        "bytes": Bad(lambda: b"item", "cannot split a bytes"),
        "set": Bad(lambda: set(TEXTS), "cannot split a set: its order differs between processes"),
        "None": Bad(lambda: None, "cannot split a NoneType: it takes a list or another sequence"),
        "int": Bad(lambda: 7, "cannot split a int"),
        "path": Bad(lambda: Path("rows.jsonl"), "read it first"),
        "generator function": Bad(lambda: lambda: iter(TEXTS), "cannot split a function: call it"),
        "class": Bad(lambda: list, "cannot split a type: call it"),
        "columns of unequal lengths": Bad(
            lambda: COLUMNS | {"n": [0]}, "the columns of a dict have different numbers of rows: 'text' 7, 'n' 1"
        ),
        "one row": Bad(lambda: DICTS[0], "'text' of a dict is a str, not a column"),
        "rows by key": Bad(lambda: {"a": DICTS[0]}, "'a' of a dict is a dict, not a column"),
        "dict with a tensor of no dimension": Bad(lambda: {"n": torch.tensor(7)}, "'n' of a dict is a Tensor, not a"),
        "tensor of no dimension": Bad(lambda: torch.tensor(7), "cannot split a number"),
        "DataLoader": Bad(lambda: DataLoader(torch.arange(ROWS)), "pass its `dataset`"),  # type: ignore[arg-type]
        "DatasetDict": Bad(lambda: datasets.DatasetDict(train=table), "name one of its splits ('train')"),
        "torch Dataset without length": Bad(NoLength, "it has no __len__"),
        "pyarrow reader": Bad(lambda: pa.table(COLUMNS).to_reader(), "pass pyarrow.table(...) of it"),
        "generator that fails": Bad(lambda: _failing(0), "ValueError: row 2 is broken"),
        **({} if _world() == 1 else {
            "None on the other ranks": Bad(lambda: None if rank else TEXTS, "cannot split a NoneType"),
            "other lengths": Bad(lambda: TEXTS[rank:], "different numbers of rows (rank 0 7, rank 1 6)"),
            "a stream on one": Bad(
                lambda: table.to_iterable_dataset() if rank else table, "different numbers of rows (rank 0 7, rank 1 a"
            ),
            "list in another order": Bad(lambda: TEXTS[:: 1 - 2 * rank], "row 0 of rank 1 is not that of rank 0"),
            "list of a set": Bad(lambda: sorted(TEXTS, key=lambda t: hash((t, rank))), "rank 1 is not that of rank 0"),
            "DataFrame in another order": Bad(
                lambda: pd.DataFrame(COLUMNS).sample(frac=1, random_state=rank), "of rank 1 is not that of rank 0"
            ),
            "Dataset in another order": Bad(lambda: table.shuffle(seed=rank), "of rank 1 is not that of rank 0"),
            "columns in another order": Bad(
                lambda: {"n": torch.arange(ROWS).roll(rank)}, "row 0 of rank 1 is not that of rank 0"
            ),
            "generator in another order": Bad(lambda: iter(TEXTS[:: 1 - 2 * rank]), "row 0 of rank 1 is not that of"),
            "generator that fails on one rank": Bad(lambda: _failing(1), "ValueError: row 2 is broken"),
        }),
    }  # fmt: skip


def _world() -> int:
    from accelerate import PartialState

    return int(PartialState().num_processes)


def _failing(on: int) -> Iterator[str]:
    from accelerate import PartialState

    for number, text in enumerate(TEXTS):
        if number == 2 and PartialState().process_index >= on:
            raise ValueError("row 2 is broken")
        yield text


def _by_column(part: Any) -> list[Any]:
    return [dict(zip(part, row, strict=True)) for row in zip(*part.values(), strict=True)]


def _tolist(part: Any) -> list[Any]:
    return list(part.tolist())


@dataclass
class Scored:
    """A result of a class of the program's own, with a tensor in it."""

    text: str
    logits: Any


class TwoWords(Exception):
    """An exception that pickle writes and cannot read."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}")


def good_results(mine: list[int]) -> dict[str, tuple[Any, Callable[[int], Any]]]:
    """Results of a rank whose items are `mine`, and what the result of item n is among the gathered ones."""
    import datasets
    import numpy as np
    import pandas as pd
    import torch

    return {
        "list": ([n * n for n in mine], lambda n: n * n),
        "tuple": (tuple(f"t{n}" for n in mine), lambda n: f"t{n}"),
        "generator": ((f"t{n}" for n in mine), lambda n: f"t{n}"),
        "dicts": ([{"n": n, "x": [n, {"y": None}]} for n in mine], lambda n: {"n": n, "x": [n, {"y": None}]}),
        "None": ([None for _ in mine], lambda n: None),
        "exceptions": ([str(ValueError(n)) for n in mine], lambda n: str(n)),
        "large integers": ([2**70 + n for n in mine], lambda n: 2**70 + n),
        "numpy array": (np.array(mine, np.int64) * 2, lambda n: 2 * n),
        "pandas Series": (pd.Series([f"t{n}" for n in mine], index=mine), lambda n: f"t{n}"),
        "datasets.Dataset": (datasets.Dataset.from_dict({"n": mine}), lambda n: {"n": n}),
        "tensor": (torch.tensor(mine, dtype=torch.int64) * 2, lambda n: 2 * n),
        "tensor that requires grad": (torch.tensor([float(n) for n in mine], requires_grad=True), lambda n: float(n)),
        "objects with tensors": ([Scored(f"t{n}", torch.tensor([n])) for n in mine],
                                 lambda n: Scored(f"t{n}", torch.tensor([n]))),
        "results of other sizes": (["x" * 1000 * n for n in mine], lambda n: "x" * 1000 * n),
    }  # fmt: skip


def bad_results(rank: int, mine: list[int]) -> dict[str, tuple[Any, str]]:
    """What gather_results refuses on every rank, and a part of what it says."""
    import pandas as pd

    several = {
        "a lambda": ([lambda: 0 for _ in mine], "result 0 of this rank, a function, cannot be sent"),
        "a generator among them": ([*mine[:2], _failing(9)] if rank else mine, "result 2 of this rank, a generator"),
        "what pickle cannot read": ([TwoWords("a", "b") for _ in mine], "rank 0 cannot be read on the main process"),
        "one too many": ([*mine, 0] if rank else mine[:-1], "ranks gave [3, 4] results where a split of 7 has [4, 3]"),
        "none on one rank": ([] if rank else mine, "ranks gave [4, 0] results"),
        "None on one rank": (None if rank else mine, "cannot gather a NoneType"),
        "a generator that fails on one rank": (_failing(1) if rank else mine, "ValueError: row 2 is broken"),
    } if _world() > 1 else {}  # fmt: skip
    return {
        "a text": ("abc", "cannot gather a str: give a list"),
        "a dict": ({"n": mine}, "cannot gather a dict: give a list"),
        "a set": ({*mine}, "cannot gather a set: it has no order"),
        "nothing": (None, "cannot gather a NoneType"),
        "a number": (0.5, "cannot gather a float"),
        "a DataFrame": (pd.DataFrame({"n": mine}), "to_dict('records')"),
        **several,
    }
