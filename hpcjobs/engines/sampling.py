"""Sampling that depends on the sample only, not on its batch, rank or neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hpcjobs.config import GenerationConfig


@dataclass(frozen=True, slots=True, order=True)
class Sampling:
    """How tokens are drawn. `top_k` 0, `top_p` 1 and `min_p` 0 leave all tokens in."""

    temperature: float
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    @classmethod
    def of(cls, generation: GenerationConfig) -> Sampling:
        """The sampling that the generation settings ask for."""
        return cls(generation.temperature, generation.top_k, generation.top_p, generation.min_p)


class SeededSampler:
    """A logits processor: the argmax of its output is a draw from the softmax of the warped logits.

    Each row has its own generator, seeded by its sample, so greedy decoding of these logits samples the same text in
    any batch.
    """

    def __init__(self, seeds: Sequence[int], sampling: Sampling) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._sampling = sampling

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores` [rows, vocabulary] in any float type; float32 of the same shape on its device."""
        return perturbed(scores, self._generators, self._sampling)


def perturbed(scores: torch.Tensor, generators: Sequence[torch.Generator], sampling: Sampling) -> torch.Tensor:
    """Scores [rows, vocabulary], float32, whose argmax is a draw; each row uses its own generator.

    Source: the Gumbel-max trick (Gumbel 1954; Maddison et al., 2014). The noise is made in float64: near 1, float32 is
    so coarse that tokens with a probability below 1e-7 would never be drawn.
    """
    left = warped(scores, sampling)
    size = left.shape[-1]
    uniform = torch.stack([torch.rand(size, generator=each, dtype=torch.float64) for each in generators])
    noise = -torch.log(-torch.log(uniform.clamp(min=1e-20)))
    return left + noise.to(left.device, torch.float32)


def warped(scores: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Scores [rows, vocabulary], float32, whose softmax has the probabilities of a draw; minus infinity is left out.

    Order and rules are those of transformers' logits warpers (version 5): temperature, top_k, top_p, min_p.
    """
    left = scores.float() / sampling.temperature
    if sampling.top_k:
        left = most_likely(left, sampling.top_k)
    if sampling.top_p < 1:
        left = nucleus(left, sampling.top_p)
    return not_far_below(left, sampling.min_p) if sampling.min_p else left


def most_likely(scores: torch.Tensor, top_k: int) -> torch.Tensor:
    """Scores in which all below the `top_k`-th are minus infinity; those equal to it stay (Fan et al., 2018)."""
    last = scores.topk(min(top_k, scores.shape[-1]), dim=-1).values[..., -1:]
    return scores.masked_fill(scores < last, float("-inf"))


def nucleus(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    """Scores in which all but the smallest set of tokens with a total probability of `top_p` are minus infinity.

    The most likely token always stays; of equal ones those with lower numbers do, in any batch, where transformers
    leaves it to its sort. Source: Holtzman et al., 2020.
    """
    values, order = (part.flip(-1) for part in scores.sort(dim=-1, descending=True, stable=True))
    out = values.softmax(dim=-1).cumsum(dim=-1) <= 1 - top_p
    out[..., -1] = False
    return scores.masked_fill(out.scatter(-1, order, out), float("-inf"))


def not_far_below(scores: torch.Tensor, min_p: float) -> torch.Tensor:
    """Scores in which tokens with less than `min_p` of the probability of the most likely one are minus infinity.

    Source: Nguyen et al., 2024, arXiv 2407.01082.
    """
    probabilities = scores.softmax(dim=-1)
    return scores.masked_fill(probabilities < min_p * probabilities.amax(dim=-1, keepdim=True), float("-inf"))
