"""Packed rows: how a model keeps their samples apart, tried at the start of a training."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hpcjobs.errors import ConfigError
from hpcjobs.training.data.collate import IGNORED, collate
from hpcjobs.training.data.tokens import Ints
from hpcjobs.training.loss import Loss, PackedBy

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
# The largest allowed difference of logits in float32, as a share of their standard deviation. Rounding makes 1e-6 of
# it; a state that leaks, 7e-4 and more, with random weights as they begin.
_NEAR = 1e-4
# Tokens of the long sample beyond the last border, and at least.
_BEYOND, _LEAST = 16, 64
# Keys of a model's config whose numbers are places where its attention or its positions change.
_BORDERS = ("window", "chunk", "original_max_position")
# Tokens at each end of a sample whose logits are compared: a leak shows at its begin, a lost window at its end.
_ENDS = 4


class PackingError(ConfigError):
    """The model cannot run packed rows."""

    fatal = True


def packed_by(model: PreTrainedModel, longest: int) -> PackedBy:
    """How `model` (float32, not yet wrapped) keeps the samples of rows of up to `longest` tokens apart.

    Tried on rows longer than every window of the model: the logits are those of each sample alone, in the first way
    that gives them. Raises a PackingError if none does: then a sample would have another loss than alone.
    """
    import torch

    samples, tried = _Samples(model, longest), list[str]()
    with _evaluating(model), torch.no_grad():
        for way in PackedBy:
            try:
                gap = samples.gap(Loss(model, next(model.parameters()).device, way))
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # a model of any code
                tried.append(f"{way}: {type(error).__name__}: {error}"[:200])
                continue
            if gap <= _NEAR:
                return way
            tried.append(f"{way}: logits differ by {gap:.1e} of their standard deviation")
    log.info("packed rows of %s: %s", type(model).__name__, "; ".join(tried))
    raise PackingError(
        f"train.packing: {type(model).__name__} does not keep packed samples apart (its states or positions run from "
        "one into the next), so they would have another loss than alone: set train.packing to false"
    )


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout within the block."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


class _Samples:
    """Four samples in two rows: a long one and a short one, and the other way round with padding behind."""

    units = ((0, 1), (2, 3))

    def __init__(self, model: PreTrainedModel, longest: int) -> None:
        config = model.config.get_text_config()
        short = max(2, min(8, longest // 4))
        reach = max(_LEAST, max(_borders(config.to_dict(), longest), default=0) + _BEYOND)
        long = max(2, min(longest - short, reach))
        self.lengths: Ints = np.array([long, short, short, max(2, long - 3)], np.int64)
        self._vocabulary = int(config.vocab_size)

    def sample(self, number: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """(ids, trained) of one sample, as a TokenFile has it."""
        places = np.arange(int(self.lengths[number]))
        learned = (places > 0) & ((places <= _ENDS) | (places >= len(places) - _ENDS))
        return ((7 + 4 * number) * (places + 1) % self._vocabulary).astype(np.int32), learned

    def gap(self, loss: Loss) -> float:
        """The largest difference of logits between packed and alone, as a share of their standard deviation."""
        import torch

        alone = torch.cat([self._logits(loss, [[number]]) for unit in self.units for number in unit])
        found = (self._logits(loss, self.units, packed=True) - alone).abs().max() / alone.std()
        return float(found) if found.isfinite() else float("inf")

    def _logits(self, loss: Loss, units: Sequence[Sequence[int]], packed: bool = False) -> torch.Tensor:
        batch = collate(units, self, 0, packed)
        return loss.logits(loss.plain, batch)[(batch.labels != IGNORED).to(loss.device)].float()


def _borders(config: Mapping[str, object], longest: int) -> Iterator[int]:
    """The numbers below `longest` in a config, and in what it nests, at which attention or positions change."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _borders(value, longest)
        elif isinstance(value, int) and value < longest and any(border in key for border in _BORDERS):
            yield value
