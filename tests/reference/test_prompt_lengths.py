"""Generation from prompts around the model's context, against lm_eval's generate_until, which cuts beginnings off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcjobs.config import GenerationConfig
from hpcjobs.requests import Completion, Request, Truncate
from tests.reference.lengths import harness, loaded, run, save_model, text_of, theirs

pytestmark = pytest.mark.model
POSITIONS, NEW = 64, 8
# Tokens of prompts, the first token included: around the room beside the new tokens, and around the positions.
LENGTHS = [2, POSITIONS - NEW - 1, POSITIONS - NEW, POSITIONS - NEW + 1, POSITIONS - 1, POSITIONS, POSITIONS + 1, 500]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), "llama", POSITIONS)


def generating(folder: Path, engine: str, truncate: Truncate | None, new: int = NEW) -> list[Completion]:
    from hpcjobs.engines.pick import EngineSpec, make_engine

    made = make_engine(*loaded(folder), GenerationConfig(max_new_tokens=new), EngineSpec(engine=engine, batch_size=3))
    texts = [text_of(length - 1) for length in LENGTHS]
    return run(made, [Request(index=n, id=str(n), prompt=text, truncate=truncate) for n, text in enumerate(texts)])


@pytest.mark.parametrize("engine", ["loop", "generate", "transformers"])
def test_a_prompt_that_is_too_long_is_cut_as_in_lm_eval(folder: Path, engine: str) -> None:
    done = generating(folder, engine, "left")
    asked: list[tuple[Any, ...]] = [(text_of(length - 1), {"max_gen_toks": NEW, "until": []}) for length in LENGTHS]
    assert [one.error for one in done] == [None] * len(done)
    assert [one.text for one in done] == theirs(harness(folder), "generate_until", asked)
    assert [one.prompt_tokens for one in done] == [min(length, POSITIONS - NEW) for length in LENGTHS]


@pytest.mark.parametrize("engine", ["loop", "generate", "transformers"])
@pytest.mark.parametrize("truncate", [None, "error"])
def test_otherwise_it_is_an_error_that_says_so(folder: Path, engine: str, truncate: Truncate | None) -> None:
    done = generating(folder, engine, truncate)
    assert [one.error is None for one in done] == [length < POSITIONS for length in LENGTHS]
    for one, length in zip(done, LENGTHS, strict=True):
        assert one.error is None or f"prompt of {length} tokens leaves no room" in one.error.message
        assert one.error or one.completion_tokens <= POSITIONS - length


@pytest.mark.parametrize("new", [POSITIONS, POSITIONS + 1])
def test_new_tokens_that_leave_no_room_for_a_prompt(folder: Path, new: int) -> None:
    """lm_eval ends with an AssertionError."""
    for one in generating(folder, "loop", "left", new):
        assert one.error
        assert f"{new} new tokens leave no room for a prompt in the model's {POSITIONS} positions" in one.error.message
    with pytest.raises(AssertionError):
        theirs(harness(folder), "generate_until", [("7", {"max_gen_toks": new, "until": []})])
