"""Logits of a long sequence, a part at a time: those of 20,000 tokens over 150,000 words are 12 GB."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.modeling_outputs import ModelOutput

# A sequence and a part to try with, in tokens.
_TRIED, _PART = 40, 9


class LogitParts:
    """Runs a model's body once over a sequence, and its head, with all that its forward does to logits, over some of
    the hidden states at a time.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model, self._body = model, model.base_model
        self._works: bool | None = None

    @property
    def works(self) -> bool:
        """Whether the parts are the logits that the model gives, tried once on a short sequence."""
        if self._works is None:
            try:
                self._works = self._body is not self._model and self._equal()
            except Exception:  # a model of any code: then its logits are computed as a whole
                self._works = False
        return self._works

    @torch.inference_mode()
    def of(self, ids: torch.Tensor, first: int, most: int) -> Iterator[torch.Tensor]:
        """Logits [tokens, vocabulary] from place `first` of `ids` [1, tokens] on, in parts of `most` tokens."""
        states = list[torch.Tensor]()

        def keep(output: ModelOutput) -> None:
            states.append(output.last_hidden_state[:, first:])

        with self._after_body(keep):
            self._model(input_ids=ids, use_cache=False, logits_to_keep=1)
        for part in torch.split(states[0], most, 1):

            def replace(output: ModelOutput, part: torch.Tensor = part) -> None:
                output.last_hidden_state = part

            with self._after_body(replace):
                logits = self._model(input_ids=ids[:, :1], use_cache=False).logits[0]
            yield logits

    @contextlib.contextmanager
    def _after_body(self, change: Callable[[ModelOutput], None]) -> Iterator[None]:
        def hook(module: torch.nn.Module, given: object, output: ModelOutput) -> ModelOutput:
            change(output)
            return output

        handle = self._body.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    @torch.inference_mode()
    def _equal(self) -> bool:
        size = int(self._model.config.get_text_config().vocab_size)
        ids = torch.tensor([[(7 * n + 1) % size for n in range(_TRIED)]], device=self._model.device)
        parts = torch.cat(list(self.of(ids, 1, _PART)))
        whole: torch.Tensor = self._model(input_ids=ids, use_cache=False).logits[0, 1:]
        least = 1e-4 if whole.dtype == torch.float32 else 0.05
        return parts.shape == whole.shape and bool((parts - whole).abs().max() <= least * whole.float().std())
