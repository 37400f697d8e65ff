"""The probabilities of sampled tokens against transformers' own logits processors, in the order of its `generate`."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from hpcjobs.config import GenerationConfig
from hpcjobs.engines.processors import processed
from hpcjobs.engines.sampling import Sampling, SeededSampler, warped
from tests.reference.families import family

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.model

SIZE, ROWS, TIED = 96, 6, (4, 5)
TOP_K = (0, 1, 2, 40, SIZE, 5000)
TOP_P = (0.0, 0.1, 0.5, 0.9, 0.999, 1.0)
MIN_P = (0.0, 0.05, 0.5, 1.0)


def random_logits() -> Any:
    """Rows of random logits; in others, ties, minus infinity, and one token alone."""
    draw = torch.Generator().manual_seed(3)
    logits = torch.randn(ROWS, SIZE, generator=draw) * 4
    logits[TIED[0]] = logits[TIED[0]].round()  # at every border
    logits[TIED[1]] = 0.0
    logits[2, torch.rand(SIZE, generator=draw) < 0.7] = float("-inf")
    logits[3] = float("-inf")
    logits[3, 7] = -2.0
    return logits


def assert_same(ours: Any, theirs: Any, settings: object) -> None:
    """Token by token. Of equal tokens at the border of top_p transformers keeps any, as its sort leaves them."""
    for row, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        one, other = (one.sort().values, other.sort().values) if row in TIED else (one, other)
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7, msg=f"row {row}, {settings}")


def their_warpers(temperature: float, top_k: int, top_p: float, min_p: float, penalty: float | None = None) -> Any:
    """What transformers makes of the settings for `generate`, with its own order."""
    config = transformers.GenerationConfig(
        do_sample=True, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=penalty,
        num_beams=1, max_length=20,
    )  # fmt: skip
    model = family("llama")
    model._prepare_special_tokens(config)
    return model._get_logits_processor(config, 1, device=torch.device("cpu"))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
def test_each_draw_has_the_probabilities_of_transformers(temperature: float) -> None:
    logits = random_logits()
    kept = set()
    for top_k, top_p, min_p in itertools.product(TOP_K, TOP_P, MIN_P):
        theirs = their_warpers(temperature, top_k, top_p, min_p)(torch.zeros(ROWS, 1).long(), logits).softmax(-1)
        ours = warped(logits, Sampling(temperature, top_k, top_p, min_p)).softmax(-1)
        assert_same(ours, theirs, (top_k, top_p, min_p))
        kept.add(int((ours > 0).sum()))
    assert len(kept) > 12  # the settings differ in what they leave


def test_a_repetition_penalty_stands_before_the_warpers() -> None:
    from hpcjobs.engines.processors import row_processors

    logits, tokens = random_logits(), [5, 7, 7, 11, 60]
    ids = torch.tensor([tokens]).repeat(ROWS, 1)
    for penalty in (0.5, 1.0, 1.3, 4.0):
        theirs = their_warpers(0.7, 20, 0.9, 0.02, penalty)(ids, logits).softmax(-1)
        own = row_processors(family("llama"), tokens[:2], 3, [], penalty)
        scores = torch.stack([processed(own, tokens, row) for row in logits])
        ours = warped(scores, Sampling(0.7, 20, 0.9, 0.02)).softmax(-1)
        assert_same(ours, theirs, penalty)


def test_the_settings_of_a_config_are_those_of_the_draw() -> None:
    said = GenerationConfig(temperature=0.7, top_k=3, top_p=0.8, min_p=0.1)
    assert Sampling.of(said) == Sampling(temperature=0.7, top_k=3, top_p=0.8, min_p=0.1)
    assert Sampling.of(GenerationConfig(temperature=1.0)) == Sampling(1.0, top_k=0, top_p=1.0, min_p=0.0)


def test_draws_come_as_often_as_their_probability_says() -> None:
    """Pearson's chi-square with fixed seeds."""
    scipy = pytest.importorskip("scipy.stats")
    chances = torch.tensor([0.55, 0.25, 0.1, 0.06, 0.03, 0.01])
    count = 20_000
    draws = SeededSampler(range(count), Sampling(1.0))(torch.empty(0), chances.log().repeat(count, 1)).argmax(-1)
    seen = torch.bincount(draws, minlength=len(chances)).numpy()
    assert scipy.chisquare(seen, (chances * count / chances.sum()).numpy()).pvalue > 0.01


def test_rare_tokens_are_drawn_too() -> None:
    """One token beside 200,000 that have a hundredth of the probability together, 5e-8 each."""
    rare = 200_000
    logits = torch.cat([torch.tensor([0.0]), torch.full((rare,), 0.01 / rare).log()])
    draws = [int(SeededSampler([seed], Sampling(1.0))(torch.empty(0), logits[None]).argmax()) for seed in range(400)]
    assert 1 <= sum(token > 0 for token in draws) <= 12  # 4 expected: 99.9 % of all runs lie between
