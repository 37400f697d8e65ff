"""Sampling that depends on the sample only, not on its batch, rank or neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class SeededSampler:
    """A logits processor: the argmax of its output is a draw from softmax(logits / temperature) with top-p.

    Each row has its own generator, seeded by its sample, so greedy decoding of these logits samples the same text in
    any batch.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._temperature, self._top_p = temperature, top_p

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores` [rows, vocabulary] in any float type; float32 of the same shape on its device."""
        return perturbed(scores, self._generators, self._temperature, self._top_p)


def perturbed(
    scores: torch.Tensor, generators: Sequence[torch.Generator], temperature: float, top_p: float
) -> torch.Tensor:
    """Scores [rows, vocabulary], float32, whose argmax is a draw; each row uses its own generator.

    Source: the Gumbel-max trick (Gumbel 1954; Maddison et al., 2014); nucleus sampling: Holtzman et al., 2020.
    """
    scaled = scores.float() / temperature
    if top_p < 1:
        scaled = nucleus(scaled, top_p)
    uniform = torch.stack([torch.rand(scaled.shape[-1], generator=generator) for generator in generators])
    noise = -torch.log(-torch.log(uniform.clamp(min=1e-20, max=1 - 1e-7)))
    return scaled + noise.to(scaled.device)


def nucleus(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    """Scores in which all but the smallest set of tokens with a total probability of `top_p` are minus infinity."""
    values, order = scores.sort(dim=-1, descending=True)
    before = values.softmax(dim=-1).cumsum(dim=-1) - values.softmax(dim=-1)
    return scores.masked_fill((before >= top_p).scatter(-1, order, before >= top_p), float("-inf"))
