"""Errors raised while planning say where the key that they name was set."""

from __future__ import annotations

import pytest

from hpcjobs.config.placing import placed, placing
from hpcjobs.errors import ConfigError, DataError, UsageError

PLACES = {
    "task.prompt": "mine.yaml:3", "task.choices": "mine.yaml:4", "task.metrics": "--set task.metrics",
    "data.name": "--data", "model.name": "mine.yaml:1", "task.messages.0.content": "mine.yaml:7",
}  # fmt: skip


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("task.prompt: no column 'x'", "mine.yaml:3: task.prompt: no column 'x'"),
        ("task.choices.1: no column 'x'", "mine.yaml:4: task.choices.1: no column 'x'"),
        ("task.messages.0.content: no", "mine.yaml:7: task.messages.0.content: no"),
        ("task.metrics: no metric 'x'", "--set task.metrics: no metric 'x'"),
        ("data file /x/y.csv does not exist", "--data: data file /x/y.csv does not exist"),
        ("model folder ./m does not exist", "mine.yaml:1: model folder ./m does not exist"),
        ("task.target is not set", "task.target is not set"),
        ("--gpus 7 does not divide", "--gpus 7 does not divide"),
        ("mine.yaml:3: task.prompt: said already", "mine.yaml:3: task.prompt: said already"),
        ("what task.prompt is", "what task.prompt is"),
    ],
)
def test_the_place_of_the_first_key(message: str, told: str) -> None:
    assert placed(message, PLACES) == told


@pytest.mark.parametrize("kind", [ConfigError, DataError, UsageError])
def test_the_kind_of_error_stays(kind: type[UsageError]) -> None:
    with pytest.raises(kind, match=r"^mine\.yaml:3: task\.prompt: no$") as caught, placing(PLACES):
        raise kind("task.prompt: no")
    assert type(caught.value) is kind


def test_a_key_without_a_place_is_of_the_file_that_is_planned() -> None:
    with pytest.raises(ConfigError, match=r"^after\.yaml: task\.target is not set$"), placing(PLACES, "after.yaml"):
        raise ConfigError("task.target is not set")
