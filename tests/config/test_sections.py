from __future__ import annotations

import pytest

from hpcjobs.config.sections import is_section, valid_keys


@pytest.mark.parametrize(
    ("path", "so"),
    [
        ("model", True), ("task.few_shot", True), ("cluster.warn", True), ("model.weights", True),
        ("task.target", False), ("task.messages", False), ("sweep", False), ("cluster.env", False), ("none", False),
        ("task.target.x", False), ("model.none", False), ("data.types", False),
    ],
)  # fmt: skip
def test_what_is_a_section(path: str, so: bool) -> None:
    assert is_section(path.split(".")) is so


def test_the_keys_that_are_valid_there() -> None:
    assert "cluster" in valid_keys([])
    assert valid_keys(["cluster", "warn"]) == ["signal", "before"]
    assert valid_keys(["task", "messages", "0"]) == ["role", "content"]
    assert "nodes" in valid_keys(["cluster"])
