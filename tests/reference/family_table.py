"""The table of docs/model-families.md: how each engine runs each family of `families.py`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.reference.families import FAMILIES, family

PAGE = Path(__file__).resolve().parents[2] / "docs" / "model-families.md"
_HEAD = ("family", "config", "`generate`", "`loop`", "`transformers`", "options")
_FIRST = f"| {' | '.join(_HEAD)} |\n|{'---|' * len(_HEAD)}\n"


def table_of(names: Iterable[str], tried: bool = True) -> list[tuple[str, ...]]:
    """The rows of the table; without `tried`, names and config classes alone, and no model is made."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    named = [(name, f"`{CONFIG_MAPPING_NAMES[FAMILIES[name][0]]}`") for name in names]
    return [(*row, *(_how(row[0]) if tried else ())) for row in named]


def _how(name: str) -> tuple[str, ...]:
    from hpcjobs.engines.lengths import has_fixed_positions, takes_padding
    from hpcjobs.engines.scoring.engine import scorer_of
    from hpcjobs.engines.scoring.tree import TreeScorer
    from hpcjobs.engines.support import runs_continuous, runs_loop

    model: Any = family(name)
    options = "shared" if isinstance(scorer_of(model), TreeScorer) else "equal"
    return (
        "equal" if takes_padding(model) else "by length",
        "equal" if runs_loop(model) else "refused",
        "equal" if runs_continuous(model) else "refused",
        options if has_fixed_positions(model) else "by length",
    )


def page_table() -> list[tuple[str, ...]]:
    """The rows that the page has."""
    lines = PAGE.read_text(encoding="utf-8").partition(_FIRST)[2].partition("\n\n")[0].splitlines()
    return [tuple(line.strip("| ").split(" | ")) for line in lines]


def with_table(rows: Iterable[tuple[str, ...]]) -> str:
    """The page with these rows in place of its own."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(_FIRST)
    lines = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return before + _FIRST + lines + "\n" + rest[rest.index("## ") :]
