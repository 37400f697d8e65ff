"""What ships with hpcjobs: the tiny model, its data sets, configs and sbatch templates, and how to find them."""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).parent
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


def asset_names() -> list[str]:
    """The data sets that ship with the package."""
    return sorted(path.stem for path in ASSETS.iterdir() if path.suffix in SUFFIXES)


def shipped(folder: str) -> Path:
    """`configs` or `sbatch`: inside an installed package, or beside it in a checkout."""
    inside = Path(__file__).parents[1] / folder
    return inside if inside.is_dir() else Path(__file__).parents[2] / folder
