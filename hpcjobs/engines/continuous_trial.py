"""Try a manager of continuous batching: do its tokens follow from the model's own logits?

Which kernels it uses (attention by mask or flash attention, paged caches, CUDA graphs) depends on the GPU and on what
is installed. Where one of them is wrong, rows get other tokens and there is no error.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from hpcjobs.engines.lengths import NEAR

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.generation.continuous_batching import ContinuousBatchingManager

log = logging.getLogger(__name__)
_LENGTHS = (1, 7, 33, 64, 129, 257, 300, 520)
# Together more than two passes of the manager (8,192 tokens), so that prompts are cut and rows wait.
_TOKENS = 20_000
_NEW = 6
_PATIENCE = 300.0


def trial_prompts(model: PreTrainedModel, positions: int) -> list[list[int]]:
    """Token ids of prompts that fit `positions`, from one token to more than two pages."""
    size, lengths = int(model.config.get_text_config().vocab_size), list[int]()
    while sum(lengths) < _TOKENS:
        lengths.append(max(1, min(_LENGTHS[len(lengths) % len(_LENGTHS)], positions - _NEW)))
    return [[(7 * n * n + 31 * row + n) % size for n in range(length)] for row, length in enumerate(lengths)]


def answers_of(manager: ContinuousBatchingManager, prompts: Sequence[Sequence[int]]) -> dict[int, list[int]]:
    """The new tokens of each prompt that came to its end."""
    for number, prompt in enumerate(prompts):
        manager.add_request(list(prompt), str(number), max_new_tokens=_NEW, eos_token_id=-1)
    made, ends = dict[int, list[int]](), time.monotonic() + _PATIENCE
    while len(made) < len(prompts) and manager.is_running() and time.monotonic() < ends:
        result = manager.get_result(timeout=1)
        if result is not None and result.is_finished():
            made[int(result.request_id)] = [] if result.error else list(result.generated_tokens)
    return made


@torch.inference_mode()
def follows(model: PreTrainedModel, prompts: Sequence[Sequence[int]], made: Mapping[int, Sequence[int]]) -> bool:
    """Whether each prompt was answered, and each token has the largest logit of a plain pass, but for rounding."""
    for number, prompt in enumerate(prompts):
        answer = list(made.get(number, ()))
        if len(answer) != _NEW:
            log.warning("continuous batching gave %d of %d tokens", len(answer), _NEW)
            return False
        ids = torch.tensor([[*prompt, *answer]], device=model.device)
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
        short = logits.max(-1).values - logits.gather(1, ids[0, len(prompt) :, None])[:, 0]
        if not (short <= NEAR[model.dtype.itemsize] * logits.std(-1)).all():
            log.warning("continuous batching gave other tokens to a prompt of %d tokens", len(prompt))
            return False
    return True
