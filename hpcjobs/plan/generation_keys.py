"""Name the keys of a model's generation_config.json that a run does not use; refuse what its engine cannot do."""

from __future__ import annotations

from hpcjobs.config import GenerationConfig
from hpcjobs.config.schema import Config
from hpcjobs.engines.generation_keys import generation_values, is_guided, unused_keys
from hpcjobs.errors import ConfigError
from hpcjobs.plan.model import model_folder

_SAMPLING = ("top_k", "top_p", "min_p")


def generation_notes(config: Config) -> list[str]:
    """Notes on the keys that are not used. Raises a ConfigError for what the engine or sampling cannot do."""
    folder = None if config.task.type in ("choice", "perplexity") else model_folder(config)
    if folder is None:
        return _idle(config)
    file, values = generation_values(folder)
    if config.model.engine == "loop" and is_guided(values.get("guidance_scale")):
        raise ConfigError(f"{file}: the engine 'loop' has no guidance_scale: set model.engine to auto or generate")
    if values.get("watermarking_config") and config.task.generation.temperature > 0:
        raise ConfigError(f"{file}: watermarking_config is for greedy answers: set task.generation.temperature to 0")
    unused = unused_keys(values)
    said = f"not used of {file.name}: {', '.join(unused)}; answers are greedy or sampled as task.generation says"
    return [*([said] if unused else []), *_idle(config)]


def _idle(config: Config) -> list[str]:
    """A note on settings of sampling in a run that does not sample."""
    generation, greedy = config.task.generation, GenerationConfig()
    idle = [f"task.generation.{name}" for name in _SAMPLING if getattr(generation, name) != getattr(greedy, name)]
    sampled = config.task.type != "generate" or generation.temperature > 0
    return [] if sampled or not idle else [f"not used: {', '.join(idle)}; task.generation.temperature is 0, greedy"]
