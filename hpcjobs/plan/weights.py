"""The weights of a config's model, checked when planning: by the headers of its files, without torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from hpcjobs.config import Config, WeightsConfig
from hpcjobs.engines.causal import check_config
from hpcjobs.engines.weight_files import StoredTensor, stored_tensors
from hpcjobs.engines.weights import check_targets, not_whole, quantised_error, tied_targets_error, weight_problems
from hpcjobs.errors import ConfigError
from hpcjobs.plan.layouts import Layout, layout_of
from hpcjobs.plan.model import model_folder
from hpcjobs.run_folder.files import read_json

# Modules that are, or share their weights with, the embeddings where those are tied.
_EMBEDDINGS = {"lm_head", "embed_out", "output", "embed_tokens", "wte", "embed_in", "word_embeddings"}


def check_weights(config: Config) -> None:
    """Raise a ConfigError that names files or tensors if the model's weights cannot be right, or if it is not causal.

    A model passes that is not here yet, that an engine loads itself, or whose weights are made up (`train.init:
    random`). What headers cannot tell is checked when the weights are loaded.
    """
    folder = model_folder(config)
    if folder is None or not (folder / "config.json").is_file() or config.train.init == "random":
        return
    model = read_json(folder / "config.json")
    check_config(config.model.name, model)
    if (folder / "adapter_config.json").is_file():
        raise ConfigError(
            f"model folder {folder} has an adapter_config.json beside its config.json: transformers would load the "
            "adapter's base model instead of these weights; move the adapter into a folder of its own"
        )
    found = stored_tensors(folder, model.get("transformers_weights"))
    if model.get("quantization_config") or config.model.trust_remote_code or config.model.weights.rename:
        return  # the names in the files are not the model's
    if (layout := layout_of(model)) and (problems := layout_problems(layout, found, config.model.weights)):
        raise not_whole(config.model.name, problems)


def layout_problems(layout: Layout, found: Mapping[str, StoredTensor], weights: WeightsConfig) -> list[str]:
    """What differs between the tensors that a model needs and those of its files; empty if nothing does."""
    wanted = {layout.bare(name): (name, shape) for name, shape in layout.tensors.items()}
    there = {layout.bare(name): (name, one.shape) for name, one in found.items()}
    missing = {name for bare, (name, _) in wanted.items() if bare not in there}
    if layout.tied:
        missing.discard(layout.output)
    report: dict[str, Collection[Any]] = {
        "missing_keys": missing,
        "unexpected_keys": [name for bare, (name, _) in there.items() if bare not in wanted],
        "mismatched_keys": [
            (name, shape, wanted[bare][1])
            for bare, (name, shape) in there.items()
            if bare in wanted and shape != wanted[bare][1]
        ],
        "error_msgs": [],
    }
    return weight_problems(report, weights)


def check_trained(config: Config) -> None:
    """Raise a ConfigError for a base model that cannot be trained, and for adapters that cannot be merged into it."""
    folder = model_folder(config)
    if folder is None or not (folder / "config.json").is_file():
        return
    model = read_json(folder / "config.json")
    check_config(config.model.name, model)
    if (how := model.get("quantization_config")) and config.train.init == "pretrained":
        raise quantised_error(config.model.name, how.get("quant_method", "quantization_config"))
    lora = config.train.lora
    if lora.rank is None:
        return
    tied = [name for name in lora.target_modules if name.rpartition(".")[2] in _EMBEDDINGS]
    if tied and _is_tied(folder, model):
        raise tied_targets_error(tied)
    if layout := layout_of(model):
        matrices = [name for name, shape in layout.tensors.items() if len(shape) == 2]
        check_targets(lora.target_modules, {name.removesuffix(".weight") for name in matrices})


def _is_tied(folder: Path, model: Mapping[str, object]) -> bool:
    """Whether output layer and embeddings share their weights; only what the config or its layout says for sure."""
    if (said := model.get("tie_word_embeddings")) is not None:
        return bool(said)
    layout = layout_of(model)
    try:
        return layout is not None and layout.output not in stored_tensors(folder)
    except ConfigError:  # no weights, as for train.init random
        return False
