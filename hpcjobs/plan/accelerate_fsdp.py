"""`fsdp_config` of the file that `accelerate config` writes, of FSDP1 or FSDP2, as `train.fsdp`, which is FSDP2.

The names and spellings are those of accelerate 1.15: `commands/config/cluster.py` writes them, `commands/launch.py` and
`FullyShardedDataParallelPlugin` read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcjobs.config import FsdpConfig
from hpcjobs.errors import ConfigError, did_you_mean

# accelerate's names and numbers of FSDP1's strategies: whether weights are freed after the forward pass.
_STRATEGIES = {"FULL_SHARD": True, "SHARD_GRAD_OP": False}
_NUMBERS = {"1": "FULL_SHARD", "2": "SHARD_GRAD_OP", "3": "NO_SHARD", "4": "HYBRID_SHARD", "5": "HYBRID_SHARD_ZERO2"}
_POLICIES = ("TRANSFORMER_BASED_WRAP", "SIZE_BASED_WRAP", "NO_WRAP")
# The default of `accelerate launch --fsdp_min_num_params`.
_MIN_NUM_PARAMS = 100_000_000
_TRUE, _FALSE = ("y", "yes", "t", "true", "on", "1"), ("n", "no", "f", "false", "off", "0")
_READ = (
    "version", "sharding_strategy", "reshard_after_forward", "offload_params", "activation_checkpointing",
    "auto_wrap_policy", "min_num_params", "transformer_layer_cls_to_wrap",
)  # fmt: skip
# What FSDP2 does not have, or submit train does in its own way, with the value that asks for nothing.
_NO_MATTER = {
    "state_dict_type": "", "backward_prefetch": "no_prefetch", "backward_prefetch_policy": "no_prefetch",
    "forward_prefetch": "false", "use_orig_params": "true", "sync_module_states": "true",
    "cpu_ram_efficient_loading": "false", "activation_checkpointing_offload": "false", "ignored_modules": "",
}  # fmt: skip


@dataclass(frozen=True)
class FoundFsdp:
    """`train.fsdp` for a file, and the settings in it that are not used."""

    config: FsdpConfig
    unused: list[str]


def fsdp_settings(values: Mapping[str, object], path: Path) -> FoundFsdp:
    """The FSDP settings of a file. Raises a ConfigError for a value that accelerate does not know, or that is not run.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path}: fsdp_config {values!r} is no mapping of settings")
    found = {str(name).removeprefix("fsdp_"): value for name, value in values.items() if value is not None}
    try:
        return FoundFsdp(_config(found), _unused(found))
    except ValueError as error:
        raise ConfigError(f"{path}: fsdp_config: {error}") from None


def _config(found: Mapping[str, object]) -> FsdpConfig:
    version = str(found.get("version", 1))
    if version not in ("1", "2"):
        raise ValueError(f"fsdp_version {version} is none of 1, 2")
    strategy = _strategy(found, version)
    if strategy == "NO_SHARD":
        return FsdpConfig()
    if strategy not in _STRATEGIES:
        valid = ", ".join(_NUMBERS.values())
        kind = "is not run by submit train" if strategy in _NUMBERS.values() else f"is none of {valid}"
        raise ValueError(f"sharding strategy {strategy} {kind}: FULL_SHARD and SHARD_GRAD_OP are, and NO_SHARD")
    policy = str(found.get("auto_wrap_policy", _POLICIES[0])).upper()
    if policy not in _POLICIES:
        raise ValueError(
            f"fsdp_auto_wrap_policy {policy} is none of {', '.join(_POLICIES)}{did_you_mean(policy, _POLICIES)}"
        )
    least = _whole(found.get("min_num_params", _MIN_NUM_PARAMS))
    return FsdpConfig(
        enabled=True,
        reshard_after_forward=_STRATEGIES[strategy],
        cpu_offload=_boolean(found, "offload_params"),
        activation_checkpointing=_boolean(found, "activation_checkpointing"),
        auto_wrap_policy=policy.lower(),  # type: ignore[arg-type]
        min_num_params=least or None if policy == "SIZE_BASED_WRAP" else None,
        transformer_cls_names_to_wrap=_names(found.get("transformer_layer_cls_to_wrap", "")),
    )


def _strategy(found: Mapping[str, object], version: str) -> str:
    """The sharding strategy, by FSDP1's name of it.

    `accelerate config` writes FSDP1's into `fsdp_reshard_after_forward`, and earlier versions into
    `fsdp_sharding_strategy`, which FSDP1 prefers. FSDP2 has a boolean in the first.
    """
    first, second = ("sharding_strategy", "reshard_after_forward")[:: 1 if version == "1" else -1]
    value = str(found.get(first, found.get(second, "FULL_SHARD"))).upper()
    if version == "1":
        value = _NUMBERS.get(value, value)
    if value.lower() in (*_TRUE, *_FALSE):
        return "FULL_SHARD" if value.lower() in _TRUE else "SHARD_GRAD_OP"
    return _NUMBERS.get(value, value)


def _boolean(found: Mapping[str, object], name: str) -> bool:
    """A boolean, or a word that accelerate reads as one; false where it is not set."""
    word = str(found.get(name, False)).lower()
    if word not in (*_TRUE, *_FALSE):
        raise ValueError(f"fsdp_{name} {found[name]!r} is neither true nor false")
    return word in _TRUE


def _whole(value: Any) -> int:
    """A number of parameters: 100000000, "100000000" or 1e8."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(value, bool) or number < 0 or number != number // 1:
        raise ValueError(f"fsdp_min_num_params {value!r} is no whole number")
    return int(number)


def _names(value: object) -> tuple[str, ...]:
    """Class names, separated by commas or in a list."""
    names = value if isinstance(value, list) else str(value).split(",")
    return tuple(filter(None, (str(name).strip() for name in names)))


def _unused(found: Mapping[str, object]) -> list[str]:
    names = [
        f"fsdp_{name} {value}" + ("" if name in _NO_MATTER else f"{did_you_mean(name, _READ)}")
        for name, value in found.items()
        if name not in _READ and str(value).lower() != _NO_MATTER.get(name)
    ]
    return (["fsdp_version 1 (FSDP2 is run)"] if str(found.get("version", 1)) == "1" else []) + names
