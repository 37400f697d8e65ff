from __future__ import annotations

from hpcjobs.metrics import SCORING, changed_since


def test_what_an_earlier_version_scored_otherwise_is_named_and_nothing_of_today() -> None:
    names = ["exact_match", "number_match", "pass@1(number_match)", "number_match(decimal=comma)", "contains"]
    assert changed_since(1, names) == names[1:4]
    assert changed_since(1, names, ("lower",)) == names[1:4]
    assert changed_since(1, names, ("lower", "numbers")) == names
    assert changed_since(SCORING, names, ("numbers",)) == []
    assert changed_since(SCORING - 1, names, ("numbers",)), "what raised it"
