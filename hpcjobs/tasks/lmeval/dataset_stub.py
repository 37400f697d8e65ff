"""A task's data set, cut to the few rows that its code needs when it is loaded.

lm_eval builds a task from its whole data set, but ranks need only its code: their rows are in inputs/. So the results
of `datasets.load_dataset` are recorded when planning, cut short, and replayed on the ranks.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from hpcjobs.errors import ConfigError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


Answer: TypeAlias = "Dataset | DatasetDict"


@dataclass
class DatasetStub:
    """Recorded results of `load_dataset` by its arguments: a Dataset, or a DatasetDict of splits."""

    answers: dict[str, Answer] = field(default_factory=dict)

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Within the block, record what `load_dataset` returns. Raises a ConfigError for streamed data sets."""
        import datasets

        load = datasets.load_dataset

        def load_dataset(*args: object, **kwargs: object) -> Answer:
            answer = load(*args, **kwargs)
            if not isinstance(answer, datasets.Dataset | datasets.DatasetDict):
                raise ConfigError(f"the task streams its data set ({type(answer).__name__}), which cannot be planned")
            self.answers[_key(args, kwargs)] = answer
            return answer

        with _replaced(load_dataset):
            yield

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Within the block, replay the recorded results. Raises a ConfigError for other arguments."""

        def load_dataset(*args: object, **kwargs: object) -> Answer:
            key = _key(args, kwargs)
            if key not in self.answers:
                raise ConfigError(f"the task asks for another data set than when it was planned: {key}")
            return self.answers[key]

        with _replaced(load_dataset), _without_bars():
            yield

    @property
    def rows(self) -> int:
        """The number of rows of the longest split."""
        return max((len(one) for answer in self.answers.values() for one in _splits(answer).values()), default=0)

    def cut(self, rows: int) -> DatasetStub:
        """The first `rows` rows of each split."""
        import datasets

        short: dict[str, Answer] = {}
        for key, answer in self.answers.items():
            splits = {name: one.select(range(min(rows, len(one)))) for name, one in _splits(answer).items()}
            short[key] = datasets.DatasetDict(splits) if _several(answer) else splits[""]
        return DatasetStub(short)

    def files(self) -> dict[str, bytes]:
        """The recorded results as files by name: an index, and one Arrow file per split."""
        files, index = dict[str, bytes](), dict[str, dict[str, str]]()
        for key, answer in self.answers.items():
            names = index.setdefault(key, {})
            for split, one in _splits(answer).items():
                names[split] = f"{len(files)}.arrow"
                files[names[split]] = _bytes(one)
        return files | {"index.json": json.dumps(index, indent=2).encode()}

    @classmethod
    def read(cls, folder: Path) -> DatasetStub:
        """Read what `files` gave from `folder`."""
        import datasets

        answers: dict[str, Answer] = {}
        index: Mapping[str, Mapping[str, str]] = json.loads((folder / "index.json").read_bytes())
        for key, names in index.items():
            splits = {split: _dataset((folder / name).read_bytes()) for split, name in names.items()}
            answers[key] = splits[""] if "" in splits else datasets.DatasetDict(splits)
        return cls(answers)


@contextlib.contextmanager
def _replaced(function: Callable[..., Answer]) -> Iterator[None]:
    """Within the block, `datasets.load_dataset`, which lm_eval and tasks call by that name, is `function`."""
    import datasets

    before = datasets.load_dataset
    datasets.load_dataset = function
    try:
        yield
    finally:
        datasets.load_dataset = before


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """Without progress bars: a task's code maps and filters its rows on every rank."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()


def _key(args: Sequence[object], kwargs: Mapping[str, object]) -> str:
    names = ("path", "name", "data_dir", "data_files", "split")  # load_dataset's order
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    return json.dumps({name: value for name, value in given.items() if value is not None}, sort_keys=True, default=str)


def _several(answer: Answer) -> bool:
    return isinstance(answer, dict)


def _splits(answer: Answer) -> dict[str, Dataset]:
    return dict(answer) if _several(answer) else {"": answer}


def _bytes(dataset: Dataset) -> bytes:
    import pyarrow as pa

    table = dataset.with_format("arrow")[:] if len(dataset) else dataset.data.table.slice(0, 0)
    table = table.cast(dataset.features.arrow_schema)  # its metadata tell what Arrow has no type for
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _dataset(content: bytes) -> Dataset:
    import datasets
    import pyarrow as pa

    table = pa.ipc.open_file(pa.BufferReader(content)).read_all()
    return datasets.Dataset(datasets.table.InMemoryTable(table))
