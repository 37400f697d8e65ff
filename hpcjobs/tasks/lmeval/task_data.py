"""A task's data set, recorded when planning and replayed on the ranks and in the merge.

lm_eval builds a task from its whole data set, and the task's code may keep what it learns there: labels, counts. So the
results of `datasets.load_dataset` and of `custom_dataset` functions travel whole.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from hpcjobs.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, DatasetDict


Answer: TypeAlias = "Dataset | DatasetDict | dict[str, Dataset]"


@dataclass
class TaskData:
    """Recorded data sets by the arguments of `load_dataset`: a Dataset, or splits by name."""

    answers: dict[str, Answer] = field(default_factory=dict)

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Within the block, record what is loaded. Raises a ConfigError for streamed data sets."""
        import datasets

        load = datasets.load_dataset

        def load_dataset(*args: object, **kwargs: object) -> Answer:
            return self.answers.setdefault(_key(args, kwargs), _checked(load(*args, **kwargs)))

        def custom(task: Any, make: Callable[[], None]) -> None:
            make()
            self.answers[_custom_key(task)] = _checked(task.dataset)

        with _replaced(load_dataset, custom):
            yield

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Within the block, replay the recorded results. Raises a ConfigError for other arguments."""

        def load_dataset(*args: object, **kwargs: object) -> Answer:
            return self._answer(_key(args, kwargs))

        def custom(task: Any, make: Callable[[], None]) -> None:
            task.dataset = self._answer(_custom_key(task))

        with _replaced(load_dataset, custom), _without_bars(), _without_few_shot_lists():
            yield

    def _answer(self, key: str) -> Answer:
        if key not in self.answers:
            raise ConfigError(f"the task asks for another data set than when it was planned: {key}")
        return self.answers[key]

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
    def read(cls, folder: Path) -> TaskData:
        """Read what `files` gave from `folder`. Runs of an earlier version have the first rows only."""
        import datasets

        answers: dict[str, Answer] = {}
        index: Mapping[str, Mapping[str, str]] = json.loads((folder / "index.json").read_bytes())
        for key, names in index.items():
            splits = {split: _dataset(folder / name) for split, name in names.items()}
            answers[key] = splits[""] if "" in splits else datasets.DatasetDict(splits)
        return cls(answers)


def _checked(answer: object) -> Answer:
    import datasets

    if not all(isinstance(one, datasets.Dataset) for one in _splits(answer).values()):
        raise ConfigError(f"the task streams its data set ({type(answer).__name__}), which cannot be planned")
    found: Answer = answer
    return found


@contextlib.contextmanager
def _replaced(function: Callable[..., Answer], custom: Callable[[Any, Callable[[], None]], None]) -> Iterator[None]:
    """Within the block, `datasets.load_dataset`, which lm_eval and tasks call by that name, is `function`; a task with
    a `custom_dataset` goes through `custom`.
    """
    import datasets
    from lm_eval.api.task import ConfigurableTask

    before, download = datasets.load_dataset, ConfigurableTask.download

    @functools.wraps(download)
    def instead(self: Any, *args: object, **kwargs: object) -> None:
        make = functools.partial(download, self, *args, **kwargs)
        custom(self, make) if callable(self.config.custom_dataset) else make()

    datasets.load_dataset, ConfigurableTask.download = function, instead
    try:
        yield
    finally:
        datasets.load_dataset, ConfigurableTask.download = before, download


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


@contextlib.contextmanager
def _without_few_shot_lists() -> Iterator[None]:
    """lm_eval makes a list of all rows to draw examples from: slow, and the prompts of a planned run are there already.

    The task's own `process_docs` still sees every row.
    """
    import datasets
    from lm_eval.api.task import ConfigurableTask

    before = ConfigurableTask.fewshot_docs

    @functools.wraps(before)
    def fewshot_docs(self: Any) -> Any:
        docs = before(self)
        plain = isinstance(docs, datasets.Dataset) and isinstance(self.fewshot_cfg.sampler, str)
        return docs.select(range(min(1, len(docs)))) if plain else docs

    ConfigurableTask.fewshot_docs = fewshot_docs
    try:
        yield
    finally:
        ConfigurableTask.fewshot_docs = before


def _key(args: Sequence[object], kwargs: Mapping[str, object]) -> str:
    names = ("path", "name", "data_dir", "data_files", "split")  # load_dataset's order
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    return json.dumps({name: value for name, value in given.items() if value is not None}, sort_keys=True, default=str)


def _custom_key(task: Any) -> str:
    return json.dumps({"custom_dataset": task.config.task})


def _splits(answer: Answer) -> dict[str, Dataset]:
    return dict(answer) if isinstance(answer, dict) else {"": answer}


def _bytes(dataset: Dataset) -> bytes:
    import pyarrow as pa

    table = dataset.with_format("arrow")[:] if len(dataset) else dataset.data.table.slice(0, 0)
    table = _described(table, dataset.features.arrow_schema)
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _described(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with this schema, whose metadata tell what Arrow has no type for.

    Cast only where a type differs: Arrow's cast breaks lists of structs with a field that is always null.
    """
    if table.schema.equals(schema, check_metadata=False):
        return table.replace_schema_metadata(schema.metadata)
    return table.cast(schema)


def _dataset(path: Path) -> Dataset:
    import datasets
    import pyarrow as pa

    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    name = hashlib.sha256(str(path).encode()).hexdigest()[:16]  # or it would be a hash of the whole table
    return datasets.Dataset(datasets.table.InMemoryTable(table), fingerprint=name)
