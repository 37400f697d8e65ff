"""Files that ship with hpcjobs: the tiny model, data sets, configs and sbatch templates."""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).parent
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
PACKED = (".gz", ".zst")


def data_suffix(name: str) -> str:
    """The ending of a data file as it stands in SUFFIXES, in any case and packed or not; empty for other names."""
    name = name.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def asset_names() -> list[str]:
    """The names of the data sets that ship with hpcjobs."""
    return sorted(path.stem for path in ASSETS.iterdir() if path.suffix in SUFFIXES)


def shipped(folder: str) -> Path:
    """The folder `configs` or `sbatch`: inside an installed package, or beside it in a checkout."""
    inside = Path(__file__).parents[1] / folder
    return inside if inside.is_dir() else Path(__file__).parents[2] / folder
