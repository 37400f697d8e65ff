"""Trials of a model, such as whether it can be run in some way: run once for each model."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
Trial: TypeAlias = "Callable[[PreTrainedModel], bool]"


def once_a_model(failed: str) -> Callable[[Trial], Trial]:
    """Decorate a trial so that it is run once for each model.

    A model's own code may raise anything: then the answer is False, and the log says why after `failed`, in which %s is
    the model's class.
    """

    def decorate(trial: Trial) -> Trial:
        found: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()

        @functools.wraps(trial)
        def tried(model: PreTrainedModel) -> bool:
            if model not in found:
                try:
                    found[model] = trial(model)
                except Exception as error:
                    log.info(f"{failed}: %s: %s", type(model).__name__, type(error).__name__, error)
                    found[model] = False
            return found[model]

        return tried

    return decorate
