"""Which files a data set's name means, and which of them are the split that is asked for."""

from __future__ import annotations

import glob
import gzip
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

import pyarrow as pa

from hpcjobs.assets import PACKED, SUFFIXES, data_suffix
from hpcjobs.config.path_names import near_file
from hpcjobs.errors import DataError, did_you_mean

# The names that `datasets` knows splits by, in file names and folders (its data_files.py).
_KEYWORDS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "dev": "validation",
    "val": "validation", "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
_SHARD = re.compile(r"(\w+)-\d{5}-of-\d{5}\b")
_KEYWORD = re.compile(rf"(?:^|[-._ 0-9])({'|'.join(_KEYWORDS)})(?=$|[-._ 0-9])")
_SAVED = ("state.json", "dataset_dict.json", "dataset_info.json", "dataset_infos.json")


def is_saved(folder: Path) -> bool:
    """Whether `datasets`' save_to_disk wrote the folder."""
    return any((folder / name).is_file() for name in _SAVED[:2])


def is_pattern(name: str) -> bool:
    """Whether it stands for files, as `data/*.parquet` does."""
    return glob.has_magic(name) and not Path(name).expanduser().exists()


def saved_in(folder: Path) -> Path | None:
    """A folder inside that `datasets`' save_to_disk wrote."""
    return next((path.parent for name in _SAVED[:2] for path in sorted(folder.rglob(name))), None)


def open_bytes(path: Path) -> IO[bytes]:
    """A file's content, unpacked."""
    packed = path.suffix.lower()
    if packed == ".gz":
        return cast(IO[bytes], gzip.open(path))
    if packed == ".zst":
        return io.BufferedReader(pa.input_stream(str(path), compression="zstd"))
    return path.open("rb")


def files_of(names: Sequence[str]) -> list[Path]:
    """The files that names and patterns mean, a pattern's in the order of their names; a DataError where none is."""
    found = list[Path]()
    for name in names:
        path = Path(name).expanduser()
        paths = [path] if not is_pattern(name) else sorted(map(Path, glob.glob(str(path), recursive=True)))
        paths = [one for one in paths if one.is_file()]
        if not paths:
            missing = f"data file {name} does not exist{near_file(name)}"
            raise DataError(f"no file is {name}" if is_pattern(name) else missing)
        found += paths
    return found


def files_in(folder: Path) -> list[Path]:
    """The data files of a folder and those in it, by name; hidden ones and what `datasets` writes beside aside."""
    inside = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in _SAVED)
    hidden = (".", "__")
    return [
        path for path in inside
        if data_suffix(path.name) and not any(part.startswith(hidden) for part in path.relative_to(folder).parts)
    ]  # fmt: skip


def one_kind(files: Sequence[Path], what: str) -> str:
    """The ending that all files have, lower-case and unpacked; else a DataError."""
    for path in files:
        if not data_suffix(path.name):
            packed = " and ".join(PACKED)
            raise DataError(
                f"data file {path}: its ending must be one of {', '.join(SUFFIXES)}; texts also with {packed} behind"
            )
    kinds = {".jsonl" if (kind := data_suffix(path.name)) == ".ndjson" else kind for path in files}
    if len(kinds) > 1:
        raise DataError(f"{what} has files of several kinds ({', '.join(sorted(kinds))}): name those of one")
    return kinds.pop()


def split_of(path: Path, folder: Path | None) -> str | None:
    """The split that a file's name, or that of a folder above it within `folder`, says as `datasets` reads it."""
    if shard := _SHARD.match(path.name):
        return _KEYWORDS.get(shard[1], shard[1])
    above = [path.parent.name] if folder is None else path.parent.relative_to(folder).parts
    for part in above:
        if part in _KEYWORDS or (folder is not None and _KEYWORD.search(part)):
            return _keyword(part)
    return _keyword(path.name)


def _keyword(text: str) -> str | None:
    found = _KEYWORD.search(text)
    return _KEYWORDS[found[1]] if found else None


def of_split(files: Sequence[Path], split: str | None, what: str, folder: Path | None = None) -> list[Path]:
    """The files of a split; a DataError where it is not there, or a folder has several and none is asked for.

    As `datasets` has it, files that name no split are `train`.
    """
    splits = [split_of(path, folder) for path in files]
    there = sorted({one for one in splits if one})
    if split is None:
        if folder is not None and (len(there) > 1 or (there and None in splits)):
            others = ", and files that name none" if None in splits else ""
            raise DataError(f"data folder {folder} has the splits {', '.join(there)}{others}: set data.split to one")
        return list(files)
    chosen = [path for path, one in zip(files, splits, strict=True) if one == split]
    if chosen or there or split != "train":
        if not chosen:
            valid = ", ".join(there) or "train, as no name of a file says another"
            raise DataError(f"data.split {split!r} is not one of {what}'s: {valid}{did_you_mean(split, there)}")
        return chosen
    return list(files)
