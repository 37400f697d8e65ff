"""Which rows are held out for validation: a fraction of the data set, or another split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from hpcjobs.assets import asset_names, data_suffix
from hpcjobs.config import Config
from hpcjobs.errors import ConfigError, DataError
from hpcjobs.run_folder.inputs import user_columns
from hpcjobs.tasks.datasets import load_table
from hpcjobs.training.data.examples import Examples


def validation_rows(ids: Sequence[str], fraction: float, seed: int) -> set[int]:
    """The indexes of a fraction of the rows, at least one, chosen by seed and id."""

    def place(index: int) -> bytes:
        return hashlib.sha256(f"{seed}\0{ids[index]}".encode(errors="surrogatepass")).digest()

    count = min(len(ids) - 1, max(1, round(fraction * len(ids)))) if fraction else 0
    return set(sorted(range(len(ids)), key=place)[: max(0, count)])


def validation_table(config: Config) -> pa.Table | None:
    """The rows of `train.validation_split`; None if it is not set. Raises a ConfigError if the data set has no splits.
    """
    split = config.train.validation_split
    if split is None:
        return None
    if config.data.title in asset_names() or (data_suffix(config.data.title) and Path(config.data.title).is_file()):
        raise ConfigError(f"train.validation_split: {config.data.title} is one file, without splits; use a fraction")
    table = load_table(config.data.model_copy(update={"split": split, "max_samples": None}))
    if not len(table):
        raise DataError(f"split {split} of {config.data.title} has no rows")
    Examples(config.task, user_columns(table.column_names))
    return table
