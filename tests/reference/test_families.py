"""Greedy answers and options of models of many families, in batches, against transformers with each prompt alone.

HPCJOBS_FAMILIES=whole takes all families, and compares the table in docs/model-families.md with what the engines
choose; HPCJOBS_FAMILIES=write also writes it. The short form has one family of each kind.
"""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from hpcjobs.config import GenerationConfig
from hpcjobs.plan.likely_engine import may_run
from hpcjobs.requests import Pair, Request
from tests.reference.families import BORDER, FAMILIES, SHORT, WINDOW, family
from tests.reference.family_table import PAGE, page_table, table_of, with_table
from tests.toy_tokenizers import toy_tokenizer

pytestmark = pytest.mark.model
WHOLE = os.environ.get("HPCJOBS_FAMILIES", "short") != "short"
NEW = 6
# Tokens of the prompts, the first token included: around each window and border, and well beyond.
LENGTHS = (2, 5, WINDOW - 1, WINDOW, WINDOW + 1, BORDER - NEW, BORDER - 1, BORDER, BORDER + 1, 60)
_LETTERS = "7XQ|~^#@Z=;"


def text_of(tokens: int) -> str:
    """A text of so many tokens, the first token included."""
    draw, last, letters = random.Random(tokens), "", list[str]()
    for _ in range(tokens - 1):
        last = draw.choice([letter for letter in _LETTERS if letter != last])
        letters.append(last)
    return "".join(letters)


def ordered(engine: Any, requests: Sequence[Request]) -> list[Any]:
    done = sorted(engine.stream(iter(requests)), key=lambda one: one.index)
    assert [one.error for one in done] == [None] * len(requests)
    return done


@dataclass
class Both:
    """The model that the engines run, and one of the same weights that has run nothing."""

    model: Any
    unused: Any
    tokenizer: Any

    def alone(self) -> Any:
        """A model that has run nothing: some keep something of the rows before."""
        return copy.deepcopy(self.unused)


@pytest.fixture(scope="module", params=list(FAMILIES) if WHOLE else SHORT)
def both(request: pytest.FixtureRequest) -> Both:
    import torch

    torch.set_num_threads(1)
    return Both(family(request.param), family(request.param), toy_tokenizer("byte_bpe_bos"))


def greedy(model: Any, ids: list[int]) -> list[int]:
    """The new tokens of `generate` with one prompt."""
    import torch

    with torch.inference_mode():
        made = model.generate(
            input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), max_new_tokens=NEW,
            do_sample=False, pad_token_id=3,
        )  # fmt: skip
    found: list[int] = made[0, len(ids) :].tolist()
    return found


@pytest.mark.parametrize("engine", ["generate", "loop", "transformers"] if WHOLE else ["generate", "loop"])
def test_greedy_answers_in_batches_are_those_of_each_prompt_alone(both: Both, engine: str) -> None:
    from hpcjobs.engines.pick import EngineSpec, make_engine
    from hpcjobs.engines.support import runs_continuous, runs_loop
    from hpcjobs.errors import UsageError

    tokenizer, spec = both.tokenizer, EngineSpec(engine=engine, batch_size=len(LENGTHS))
    runs = {"loop": runs_loop, "transformers": runs_continuous}
    if engine in runs and not runs[engine](both.model):
        with pytest.raises(UsageError, match="cannot run"):
            make_engine(both.model, tokenizer, GenerationConfig(), spec)
        return
    made = make_engine(both.model, tokenizer, GenerationConfig(max_new_tokens=NEW), spec)
    requests = [Request(index=n, id=str(n), prompt=text_of(length)) for n, length in enumerate(LENGTHS)]
    done = ordered(made, requests)
    alone = [greedy(both.alone(), tokenizer(text_of(length)).input_ids) for length in LENGTHS]
    assert [one.text for one in done] == [tokenizer.decode(ids, skip_special_tokens=True) for ids in alone]


def test_options_are_those_of_each_sequence_alone(both: Both) -> None:
    import torch

    from hpcjobs.engines.scoring.engine import ScoringEngine

    tokenizer, right = both.tokenizer, list[float]()
    options = ("7", "XQ", "=;=Z7", text_of(WINDOW + 4), text_of(BORDER))
    requests = [
        Request(
            index=n, id=str(n), prompt=text_of(length), task="choice", options=options,
            pairs=tuple(Pair(text_of(length), option) for option in options),
        )
        for n, length in enumerate(LENGTHS)
    ]  # fmt: skip
    done = ordered(ScoringEngine(both.model, tokenizer, 8), requests)
    most = getattr(both.model.config, "max_position_embeddings", None) or 1000
    for pair in (pair for request in requests for pair in request.pairs):
        scored = len(tokenizer(pair.continuation, add_special_tokens=False).input_ids)
        ids = tokenizer(str(pair.context) + pair.continuation).input_ids[-(most + 1) :]  # as lm_eval shortens it
        with torch.inference_mode():
            table = both.alone()(torch.tensor([ids[:-1]]), use_cache=False).logits[0].float().log_softmax(-1)
        right.append(sum(table[n - 1, ids[n]].item() for n in range(len(ids) - scored, len(ids))))
    found = [one for done_one in done for one in done_one.likelihood.logprobs]
    assert found == pytest.approx(right, rel=1e-4, abs=1e-4)


def test_the_plan_tells_which_engines_run_it(both: Both) -> None:
    from hpcjobs.engines.support import runs_continuous, runs_loop

    config = both.model.config.to_dict()
    assert may_run("loop", config) == runs_loop(both.model)
    assert may_run("transformers", config) == runs_continuous(both.model)


if WHOLE:

    def test_the_page_says_how_each_family_runs() -> None:
        made = table_of(FAMILIES)
        if os.environ["HPCJOBS_FAMILIES"] == "write":
            PAGE.write_text(with_table(made), encoding="utf-8")
        assert page_table() == made


def test_the_page_has_each_family() -> None:
    assert [row[:2] for row in page_table()] == [row[:2] for row in table_of(FAMILIES, tried=False)]
