"""Choose the engine for a model: the configured one, or the fastest that runs it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpcjobs.config import GenerationConfig
from hpcjobs.engines.base import AUTO_BATCH, BatchSize, Engine
from hpcjobs.engines.causal import check_model
from hpcjobs.engines.registry import own_model_engine, registered_engine
from hpcjobs.errors import UsageError
from hpcjobs.requests import TaskType

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineSpec:
    """The configured engine (`model.engine`) and batch size.

    `task` is the type of the requests. `local_ranks` ranks share the host's memory, which limits the batch size.
    `deterministic`: results may depend neither on this machine or timing, nor on the batch size or on which requests
    run together.
    """

    engine: str = "auto"
    batch_size: BatchSize = "auto"
    local_ranks: int = 1
    deterministic: bool = False
    task: TaskType = "generate"


def make_engine(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig, spec: EngineSpec
) -> Engine:
    """An engine for a model. Raises a UsageError if the configured one cannot run it, or if none can."""
    check_model(model)
    if spec.task != "generate":
        from hpcjobs.engines.scoring.engine import ScoringEngine

        return ScoringEngine(model, tokenizer, spec.batch_size, spec.deterministic)
    name = best_engine(model, generation, spec) if spec.engine == "auto" else spec.engine
    registered = registered_engine(name)
    if own_model_engine(name) and registered:
        raise UsageError(f"model.engine {name!r} has a model of its own and runs in hpcjobs submit alone")
    if registered is None and not _runs(name, model):
        raise UsageError(f"model.engine {name!r} cannot run {type(model).__name__}: 'auto' or 'generate' can")
    rows = _rows(model, tokenizer, generation, name, spec) if spec.batch_size == "auto" else spec.batch_size
    log.info("engine %s, batches of %d", name, rows)
    if registered is not None:
        engine: Engine = registered(model, tokenizer, generation, rows)
        return engine
    if name == "loop":
        from hpcjobs.engines.loop.engine import LoopEngine

        return LoopEngine(model, tokenizer, generation, rows)
    if name == "transformers":
        from hpcjobs.engines.continuous import ContinuousEngine

        return ContinuousEngine(model, tokenizer, generation, rows)
    from hpcjobs.engines.generate import GenerateEngine

    return GenerateEngine(model, tokenizer, generation, rows)


def _runs(name: str, model: PreTrainedModel) -> bool:
    from hpcjobs.engines.support import runs_continuous, runs_loop

    return runs_loop(model) if name == "loop" else name != "transformers" or runs_continuous(model)


def best_engine(model: PreTrainedModel, generation: GenerationConfig, spec: EngineSpec) -> str:
    """transformers' continuous batching on GPUs; `loop` elsewhere and for sampling; `generate` for all other models."""
    from hpcjobs.engines.support import runs_continuous, runs_loop

    greedy = generation.temperature == 0
    if model.device.type == "cuda" and greedy and not spec.deterministic and runs_continuous(model):
        return "transformers"
    return "loop" if runs_loop(model) else "generate"


def _rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    generation: GenerationConfig,
    engine: str,
    spec: EngineSpec,
) -> int:
    from hpcjobs.engines.batch_rows import batch_rows
    from hpcjobs.engines.context_length import context_length

    if spec.deterministic:
        return AUTO_BATCH
    rows = batch_rows(model, generation.max_new_tokens, context_length(model, tokenizer), spec.local_ranks)
    plain = engine == "generate" and model.device.type == "cpu"
    return min(rows, AUTO_BATCH) if plain else rows  # there, rows that have ended are computed to the batch's end
