"""The generation arguments of lm_eval's tasks as settings."""

from __future__ import annotations

from typing import Any

import pytest

from hpcjobs.config import GenerationConfig
from hpcjobs.tasks.lmeval.prompting import generation_of

WARPS: dict[str, Any] = {"temperature": 0.7, "top_k": 20, "top_p": 0.0, "min_p": 0.1}


def test_sampling_is_as_the_task_says() -> None:
    assert generation_of({"do_sample": True, **WARPS}) == GenerationConfig(**WARPS)
    assert generation_of(WARPS) == GenerationConfig(**WARPS)
    assert generation_of({"temperature": 0.7, "top_p": None}) == GenerationConfig(temperature=0.7)


def test_a_greedy_task_has_no_use_for_sampling() -> None:
    assert generation_of({**WARPS, "do_sample": False, "typical_p": 0.9}) == GenerationConfig()
    assert generation_of({"repetition_penalty": 1.2, "do_sample": False}) == GenerationConfig(repetition_penalty=1.2)


@pytest.mark.parametrize("key", ["num_beams", "typical_p", "length_penalty", "num_return_sequences", "epsilon_cutoff"])
def test_what_no_engine_does_is_refused_by_name(key: str) -> None:
    with pytest.raises(ValueError, match=f"generation_kwargs.{key}: 3 is nothing that hpcjobs' engines do"):
        generation_of({"do_sample": True, "temperature": 1.0, key: 3})
