"""What a score of today finds otherwise than an earlier version of hpcjobs wrote."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from hpcjobs.metrics import SCORING
from hpcjobs.metrics.format import number_text
from hpcjobs.run_folder.metrics_file import Summary

_SAID = "scored again: "


def rescored(summary: dict[str, Any], metrics: Mapping[str, Summary], same_target: bool) -> dict[str, Any]:
    """metrics.json with new `metrics`. Values of an earlier version that were others are named in its warnings."""
    known = summary["provenance"]
    earlier = known.get("scoring", 1) < SCORING and same_target
    notes = list(_differences(summary["metrics"], metrics, known.get("merged_with"))) if earlier else []
    return summary | {
        "metrics": metrics, "warnings": [*summary["warnings"], *notes], "provenance": known | {"scoring": SCORING},
    }  # fmt: skip


def _differences(before: Mapping[str, Summary], after: Mapping[str, Summary], version: str | None) -> Iterator[str]:
    for name, now in after.items():
        old = before.get(name)
        if old is not None and not _same(old["value"], now["value"]):
            by = f"hpcjobs {version}" if version else "an earlier version of hpcjobs"
            was, value = (_text(one) for one in (old, now))
            yield f"{_SAID}{name} is {value}, and {by} wrote {was}"


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)


def _text(summary: Summary) -> str:
    value = summary["value"]
    return f"{'no value' if value is None else number_text(value)} (n={summary['n']})"
