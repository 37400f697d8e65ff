"""Proof that a model's weights are all there, all used and of the right shape: transformers itself only warns."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

from hpcjobs.config import WeightsConfig
from hpcjobs.errors import ConfigError, did_you_mean

# Buffers of older checkpoints that today's models compute, beside those that transformers knows.
_BUFFERS = re.compile(r"(\.masked_bias|\.rotary_emb\.inv_freq|\.position_ids|\.attn\.bias)$")
_SHOWN = 5


class WeightsError(ConfigError):
    """Weights that are not those of the model's config. No restart changes them."""

    fatal = True


def not_whole(name: str, problems: Sequence[str]) -> WeightsError:
    """The error for a model whose weights are not those of its config."""
    return WeightsError(
        f"model {name!r}: of its weights, {'; '.join(problems)}\nnext: if that is right, name them in "
        "model.weights.allow_missing or allow_unexpected; if they have other names there, in model.weights.rename"
    )


class AdapterError(ConfigError):
    """Adapters that cannot be trained on this model, or not be merged into it. No restart changes that."""

    fatal = True


def tied_targets_error(names: Iterable[str]) -> AdapterError:
    """The error for adapters on modules that share their weights with others."""
    return AdapterError(
        f"train.lora.target_modules: {', '.join(names)} shares its weights with the embeddings of this model "
        "(tie_word_embeddings): merged, an adapter there would change both; leave it out"
    )


def check_targets(targets: Sequence[str], layers: Collection[str]) -> None:
    """Raise an AdapterError unless each target is the name of one of `layers`, or its end, as peft matches them.

    peft itself passes over a target without a layer, as long as another has one.
    """
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            there = sorted({name.rpartition(".")[2] for name in layers} - {""})
            raise AdapterError(
                f"train.lora.target_modules: this model has no linear layer {target!r}{did_you_mean(target, there)}; "
                f"it has {', '.join(there)}"
            )


def quantised_error(name: str, how: object) -> AdapterError:
    """The error for training a model whose weights are quantised."""
    return AdapterError(
        f"model {name!r} is quantised ({how}): its weights cannot be trained, nor adapters be merged into them "
        "exactly; train the model that it was made from"
    )


def weight_problems(report: Mapping[str, Collection[Any]], weights: WeightsConfig) -> list[str]:
    """What is wrong with weights that were loaded, by transformers' `output_loading_info`; empty if nothing is.

    Tied weights are not in the report. `weights.allow_missing` and `allow_unexpected` are patterns of names.
    """
    missing = _others(report["missing_keys"], weights.allow_missing)
    unexpected = _others(report["unexpected_keys"], weights.allow_unexpected)
    shapes = sorted(f"{name} is {list(there)}, not {list(wanted)}" for name, there, wanted in report["mismatched_keys"])
    return [
        *_listed("not in its files, and would be random numbers", missing),
        *_listed("in its files and not used by the model", [name for name in unexpected if not _BUFFERS.search(name)]),
        *_listed("of another shape", shapes),
        *map(str, report["error_msgs"]),
    ]


def _others(names: Iterable[str], allowed: Sequence[str]) -> list[str]:
    return sorted(name for name in names if not any(fnmatch(name, pattern) for pattern in allowed))


def _listed(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{more}"]
