"""Load a model and its tokenizer."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hpcjobs.assets import ASSETS
from hpcjobs.config import ModelConfig, WeightsConfig
from hpcjobs.config.path_names import a_models_file
from hpcjobs.engines.context_length import config_length
from hpcjobs.engines.hub import HubModel, cache_folder, is_hub_id
from hpcjobs.engines.vocabulary import embedded_tokens
from hpcjobs.engines.weight_files import stored_tensors
from hpcjobs.engines.weights import not_whole, weight_problems
from hpcjobs.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from (an asset's name, a folder or a hub id), and how to load it."""

    name: str
    revision: str | None = None
    cache_dir: str | None = None
    trust_remote_code: bool = False
    weights: WeightsConfig = field(default_factory=WeightsConfig)

    @classmethod
    def of(cls, model: ModelConfig, cache_dir: str | None = None) -> ModelSource:
        """The source that a config names."""
        return cls(model.name, model.revision, cache_dir, model.trust_remote_code, model.weights)

    @property
    def location(self) -> str:
        """The name or path for `from_pretrained`."""
        asset = ASSETS / self.name
        return str(asset) if self.name and (asset / "config.json").is_file() else self.name

    @property
    def folder(self) -> Path | None:
        """Where its files are on this machine, in the hub's cache too; None if they are not here."""
        if Path(self.location).is_dir():
            return Path(self.location)
        cache = Path(self.cache_dir) if self.cache_dir else cache_folder(os.environ)
        return HubModel(self.name, self.revision, cache).folder() if is_hub_id(self.name) else None

    @property
    def pinned(self) -> dict[str, str | bool | None]:
        """Further arguments for `from_pretrained`."""
        return {"revision": self.revision, "cache_dir": self.cache_dir, "trust_remote_code": self.trust_remote_code}

    def not_loaded(self, error: Exception) -> ConfigError:
        """The ConfigError for a model that cannot be loaded."""
        if Path(self.location).is_file():
            return ConfigError(f"model {self.name!r} cannot be loaded: it is {a_models_file(self.name)}")
        where = "a folder" if Path(self.location).exists() else "the hub (or its cache, when offline)"
        return ConfigError(f"model {self.name!r} cannot be loaded from {where}: {error}")


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with padding on the left. Raises a ConfigError if it cannot be loaded."""
    import transformers

    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()  # a thousand ranks' logs need no bars
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source.location, padding_side="left", **source.pinned)
    except (OSError, ValueError, KeyError) as error:
        raise source.not_loaded(error) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def most_positions(source: ModelSource) -> int | None:
    """The model's context length in tokens; None if its config does not say. Raises a ConfigError."""
    return config_length(_config(source))


def vocabulary_size(source: ModelSource) -> int | None:
    """The tokens that the model has embeddings for; None if its config does not say. Raises a ConfigError."""
    return embedded_tokens(_config(source))


def _config(source: ModelSource) -> PreTrainedConfig:
    import transformers

    try:
        config: PreTrainedConfig = transformers.AutoConfig.from_pretrained(source.location, **source.pinned)
    except (OSError, ValueError, KeyError) as error:
        raise source.not_loaded(error) from error
    return config


def fresh_model(
    source: ModelSource, device: torch.device | str, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """`(model, tokenizer)`, with random float32 weights of the source's config, reproducible by `seed`.

    Raises a ConfigError.
    """
    import torch
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(source.location, **source.pinned)
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, trust_remote_code=source.trust_remote_code
        )
    except (OSError, ValueError, KeyError) as error:
        raise source.not_loaded(error) from error
    return model.to(device), load_tokenizer(source)


def load_model(
    source: ModelSource | str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None, gpus: int = 1
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """`(model, tokenizer)`: the model in eval mode on `device`, the tokenizer with padding on the left.

    `dtype` None means float32 on CPU and bfloat16 on GPU. With `gpus` above 1 the model is spread over that many,
    starting at `device`. Raises a ConfigError if it cannot be loaded, or if its weights are not all there and used.
    """
    import torch
    import transformers
    from safetensors import SafetensorError

    source = ModelSource(source) if isinstance(source, str) else source
    device = torch.device(device)
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    tokenizer = load_tokenizer(source)
    try:
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            source.location, dtype=dtype, device_map=_device_map(device, gpus), use_safetensors=True,
            key_mapping=source.weights.rename or None, ignore_mismatched_sizes=True, output_loading_info=True,
            **source.pinned,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if isinstance(error, SafetensorError) and (folder := source.folder):
            stored_tensors(folder)  # names the file, and the tensor, that the library does not
        raise source.not_loaded(error) from error
    if problems := weight_problems(report, source.weights):
        raise not_whole(source.name, problems)
    if source.weights.rename:
        model._weight_conversions = None  # else save_pretrained gives the weights the names of these files again
    if gpus == 1:
        model = model.to(device)
    return model.eval(), tokenizer


def _device_map(device: torch.device, gpus: int) -> str | None:
    """None for one device; else accelerate's 'auto' split over this rank's own GPUs."""
    if gpus == 1 or device.type != "cuda":
        return None
    return "balanced"


def torch_dtype(name: str) -> torch.dtype | None:
    """The dtype of this name in a config; None for 'auto'."""
    import torch

    return {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def precision_dtype(mixed_precision: str) -> torch.dtype:
    """The dtype of weights for inference on a GPU, for accelerate's `mixed_precision`."""
    import torch

    return {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[mixed_precision]
