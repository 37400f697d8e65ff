from __future__ import annotations

from typing import Any

from hpcjobs.merge.earlier import rescored
from hpcjobs.metrics import SCORING
from hpcjobs.run_folder.metrics_file import Summary


def one(value: float | None, n: int = 3) -> Summary:
    return {"value": value, "stderr": None, "ci95": None, "n": n}


def warned(scoring: int | None, now: dict[str, Summary], same_target: bool = True) -> list[str]:
    provenance: dict[str, Any] = {"merged_with": "0.1.0"} | ({} if scoring is None else {"scoring": scoring})
    before = {"f1": one(0.5), "own": one(None, 0)}
    found = rescored({"metrics": before, "warnings": ["w"], "provenance": provenance}, now, same_target)
    assert (found["metrics"], found["provenance"]["scoring"]) == (now, SCORING)
    assert found["warnings"][0] == "w"
    return list(found["warnings"][1:])


def test_another_value_than_an_earlier_version_wrote_is_said_with_both() -> None:
    now = {"f1": one(0.25, 4), "own": one(1.0), "new": one(1.0)}
    assert warned(None, now) == [
        "scored again: f1 is 0.2500 (n=4), and hpcjobs 0.1.0 wrote 0.5000 (n=3)",
        "scored again: own is 1.0000 (n=3), and hpcjobs 0.1.0 wrote no value (n=0)",
    ]
    assert warned(SCORING, now) == [], "mended code of one's own is no matter of versions"
    assert warned(None, now, same_target=False) == []
    assert warned(None, {"f1": one(0.5 + 1e-13), "own": one(None, 0)}) == []
