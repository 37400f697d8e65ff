"""What lengths change in a model: rope that remembers, windows, padding."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hpcjobs.engines.lengths import (
    dynamic_factor,
    forget_lengths,
    has_fixed_positions,
    longest_window,
    named_dynamic_factor,
    position_border,
    takes_padding,
    takes_positions,
)
from hpcjobs.engines.scoring.engine import agree
from tests.reference.families import BORDER, WINDOW, family

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.model


def logits(model: Any, length: int) -> Any:
    with torch.inference_mode():
        return model(input_ids=torch.arange(4, 4 + length)[None]).logits


def test_dynamic_rope_forgets_the_longest_row() -> None:
    model = family("llama, dynamic rope")
    first = logits(model, BORDER)
    logits(model, 2 * BORDER)
    assert not torch.equal(logits(model, BORDER), first)  # what transformers keeps
    forget_lengths(model)
    assert torch.equal(logits(model, BORDER), first)
    assert (has_fixed_positions(model), dynamic_factor(model)) == (False, 4.0)


def test_rope_of_each_type_of_layer_is_found() -> None:
    model = family("gemma3")
    assert has_fixed_positions(model)
    model.config.rope_parameters["full_attention"] |= {"rope_type": "dynamic", "factor": 2.0}
    assert (has_fixed_positions(model), dynamic_factor(model)) == (False, 2.0)


@pytest.mark.parametrize(("name", "window"), [("gpt_neo", WINDOW), ("llama4", WINDOW), ("llama", 0), ("dots1", 0)])
def test_windows_are_those_that_a_layer_has(name: str, window: int) -> None:
    assert longest_window(family(name)) == window


@pytest.mark.parametrize(("name", "takes"), [("llama", True), ("mamba", False), ("qwen3_next", False)])
def test_padding_is_tried(name: str, takes: bool) -> None:
    assert takes_padding(family(name)) == takes


@pytest.mark.parametrize("name", ["mpt", "gpt_neo"])
def test_what_goes_by_place_in_the_cache_shows_in_the_trial_of_branches(name: str) -> None:
    from hpcjobs.engines.scoring.sequences import PlainScorer
    from hpcjobs.engines.scoring.tree import TreeScorer

    model, told = family(name), family("llama")
    assert agree(TreeScorer(told), PlainScorer(told), told)
    assert not agree(TreeScorer(model), PlainScorer(model), model)


def test_who_counts_places_takes_no_positions() -> None:
    assert [takes_positions(family(name)) for name in ("mpt", "llama")] == [False, True]


def named(**config: Any) -> Any:
    """What these questions ask of a model: its config."""
    text = SimpleNamespace(**config)
    return SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text))


@pytest.mark.parametrize(
    ("rope", "fixed", "border", "factor"),
    [
        (None, True, None, 1.0),
        ({"rope_type": "linear", "factor": 3.0}, True, None, 1.0),
        ({"rope_type": "dynamic", "factor": 3.0}, False, None, 3.0),
        ({"rope_type": "dynamic"}, False, None, 1.0),
        ({"rope_type": "longrope", "original_max_position_embeddings": 64, "factor": 2.0}, False, 64, 1.0),
        (
            {
                "a": {"rope_type": "longrope", "original_max_position_embeddings": 64},
                "b": {"rope_type": "longrope", "original_max_position_embeddings": 32},
            },
            False, 32, 1.0,
        ),
        ({"a": {"rope_type": "default"}, "b": {"rope_type": "dynamic", "factor": 4.0}}, False, None, 4.0),
    ],
)  # fmt: skip
def test_what_the_rope_says_of_long_rows(rope: Any, fixed: bool, border: int | None, factor: float) -> None:
    model = named(rope_parameters=rope)
    assert (has_fixed_positions(model), position_border(model), dynamic_factor(model)) == (fixed, border, factor)
    assert named_dynamic_factor({"rope_parameters": rope}) == factor
    assert named_dynamic_factor({"text_config": {"rope_parameters": rope}}) == factor


def test_what_older_configs_call_it() -> None:
    assert named_dynamic_factor({"rope_scaling": {"type": "dynamic", "factor": 2.0}}) == 2.0
    assert named_dynamic_factor({"rope_scaling": {"type": "linear", "factor": 2.0}}) == 1.0
    assert named_dynamic_factor({"rope_scaling": None}) == 1.0


@pytest.mark.parametrize(
    ("config", "window"),
    [
        ({}, 0), ({"sliding_window": 8}, 8), ({"sliding_window": None, "window_size": 5, "attention_chunk_size": 9}, 9),
        ({"sliding_window": 8, "layer_types": ["full_attention", "sliding_attention"]}, 8),
        ({"attention_chunk_size": 8, "layer_types": ["full_attention", "chunked_attention"]}, 8),
        ({"sliding_window": 8, "layer_types": ["full_attention"] * 2}, 0), ({"window_size": [8, 8]}, 0),
    ],
)  # fmt: skip
def test_the_longest_window_by_the_config(config: dict[str, Any], window: int) -> None:
    assert longest_window(named(**config)) == window
