"""The engine for a model: the one that is asked for, else the quickest that runs it."""

from __future__ import annotations

import logging
from typing import Any

from hpcjobs.config import GenerationConfig
from hpcjobs.engines.base import AUTO_BATCH, BatchSize, Engine
from hpcjobs.errors import UsageError

log = logging.getLogger(__name__)
ENGINES = ("auto", "transformers", "loop", "generate")


def make_engine(
    model: Any, tokenizer: Any, generation: GenerationConfig, name: str, batch_size: BatchSize, local_ranks: int = 1
) -> Engine:
    """An engine of this name (one of ENGINES) for a model; a UsageError where it cannot run the model.

    `local_ranks` share the host's memory, out of which a batch size of 'auto' is made.
    """
    chosen = best_engine(model, generation) if name == "auto" else name
    rows = _rows(model, tokenizer, generation, chosen, local_ranks) if batch_size == "auto" else batch_size
    log.info("engine %s, batches of %d", chosen, rows)
    if chosen == "generate":
        from hpcjobs.engines.generate import GenerateEngine

        return GenerateEngine(model, tokenizer, generation, rows)
    from hpcjobs.engines.continuous import ContinuousEngine
    from hpcjobs.engines.loop import LoopEngine
    from hpcjobs.engines.support import runs_continuous, runs_packed

    if chosen == "loop":
        if not runs_packed(model):
            raise UsageError(f"model.engine 'loop' cannot run {type(model).__name__}: 'auto' or 'generate' can")
        return LoopEngine(model, tokenizer, generation, rows)
    if not runs_continuous(model):
        raise UsageError(f"model.engine 'transformers' cannot run {type(model).__name__}: 'auto' or 'generate' can")
    return ContinuousEngine(model, tokenizer, generation, rows)


def best_engine(model: Any, generation: GenerationConfig) -> str:
    """transformers' continuous batching on GPUs, our loop elsewhere and for sampling, `generate` for all others."""
    from hpcjobs.engines.support import runs_continuous, runs_packed

    if model.device.type == "cuda" and generation.temperature == 0 and runs_continuous(model):
        return "transformers"
    return "loop" if runs_packed(model) else "generate"


def _rows(model: Any, tokenizer: Any, generation: GenerationConfig, engine: str, local_ranks: int) -> int:
    from hpcjobs.engines.encoding import context_length
    from hpcjobs.engines.memory import batch_rows

    rows = batch_rows(model, generation.max_new_tokens, context_length(model, tokenizer), local_ranks)
    plain = engine == "generate" and model.device.type == "cpu"
    return min(rows, AUTO_BATCH) if plain else rows  # there, rows that have ended are computed to the batch's end
