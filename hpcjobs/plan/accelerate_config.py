"""Read the file that `accelerate config` writes: precision and FSDP settings are used, the topology comes from Slurm.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcjobs.config import FsdpConfig, TrainConfig
from hpcjobs.config.shape import Shape
from hpcjobs.config.yaml import parse_yaml
from hpcjobs.errors import ConfigError

# accelerate's name -> key of train.fsdp; values are copied.
_FSDP = {
    "fsdp_reshard_after_forward": "reshard_after_forward", "fsdp_offload_params": "cpu_offload",
    "fsdp_min_num_params": "min_num_params", "fsdp_activation_checkpointing": "activation_checkpointing",
}  # fmt: skip
_POLICIES = {
    "TRANSFORMER_BASED_WRAP": "transformer_based_wrap", "SIZE_BASED_WRAP": "size_based_wrap", "NO_WRAP": "no_wrap",
}  # fmt: skip
_KINDS = {"NO", "MULTI_GPU", "MULTI_CPU", "FSDP"}
_TOPOLOGY = ("num_machines", "num_processes", "machine_rank", "gpu_ids", "main_process_ip", "main_process_port")


def with_accelerate_config(train: TrainConfig, path: Path, shape: Shape) -> tuple[TrainConfig, list[str]]:
    """`train` with the settings of the file, and a note on which were used.

    Settings of the config itself take precedence. Raises a ConfigError if the file cannot be used.
    """
    values = _read(path)
    kind = str(values.get("distributed_type", "NO")).upper()
    if kind not in _KINDS:
        valid = ", ".join(sorted(_KINDS))
        raise ConfigError(f"{path}: distributed_type {kind} is not run by submit train; valid: {valid}")
    used: dict[str, Any] = {}
    precision = str(values.get("mixed_precision", "no"))
    if precision not in ("no", "bf16", "fp16"):
        raise ConfigError(f"{path}: mixed_precision {precision} is none of no, bf16, fp16")
    if train.mixed_precision == "auto":
        used["mixed_precision"] = precision
    if kind == "FSDP" and not train.fsdp.enabled:
        used["fsdp"] = _fsdp(values.get("fsdp_config") or {}, path)
    words = [f"{name} {_plain(value)}" for name, value in used.items()]
    topology = [f"{name} {values[name]}" for name in _TOPOLOGY if values.get(name) is not None]
    taken, replaced = ", ".join(words) or "nothing", ", ".join(topology) or "no topology"
    note = f"{path}: {taken} used; {replaced} replaced by {shape}"
    return TrainConfig.model_validate(train.model_dump() | used), [note]


def _read(path: Path) -> Mapping[str, Any]:
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"train.accelerate_config {path} cannot be read: {error}") from None
    if not isinstance(values, Mapping):
        raise ConfigError(f"train.accelerate_config {path} is not what `accelerate config` writes")
    return values


def _fsdp(values: Mapping[str, Any], path: Path) -> FsdpConfig:
    """FSDP settings as a FsdpConfig. Sharding strategies of FSDP1 are translated to FSDP2 where possible."""
    found: dict[str, Any] = {"enabled": True}
    for name, ours in _FSDP.items():
        if values.get(name) is not None:
            found[ours] = values[name]
    strategy = str(values.get("fsdp_sharding_strategy", found.get("reshard_after_forward", "")))
    if isinstance(found.get("reshard_after_forward"), str):
        strategy = found.pop("reshard_after_forward")
    if strategy.upper() in ("SHARD_GRAD_OP", "2", "FULL_SHARD", "1"):
        found["reshard_after_forward"] = strategy.upper() in ("FULL_SHARD", "1")
    policy = str(values.get("fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP")).upper()
    found["auto_wrap_policy"] = _POLICIES.get(policy, policy)
    layers = values.get("fsdp_transformer_layer_cls_to_wrap") or ""
    found["transformer_cls_names_to_wrap"] = tuple(filter(None, (name.strip() for name in str(layers).split(","))))
    try:
        return FsdpConfig.model_validate(found)
    except ValueError as error:
        raise ConfigError(f"{path}: fsdp_config: {error}") from None


def _plain(value: Any) -> str:
    if isinstance(value, FsdpConfig):
        return ", ".join(f"{name} {shown}" for name, shown in value.model_dump(exclude_defaults=True).items())
    return str(value)
