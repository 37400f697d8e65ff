"""Read the file that `accelerate config` writes: precision and FSDP settings are used, the topology comes from Slurm.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcjobs.config import TrainConfig
from hpcjobs.config.shape import Shape
from hpcjobs.config.yaml import parse_yaml
from hpcjobs.errors import ConfigError
from hpcjobs.plan.accelerate_fsdp import fsdp_settings

_KINDS = {"NO", "MULTI_GPU", "MULTI_CPU", "FSDP"}
_TOPOLOGY = ("num_machines", "num_processes", "machine_rank", "gpu_ids", "main_process_ip", "main_process_port")


def with_accelerate_config(train: TrainConfig, path: Path, shape: Shape) -> tuple[TrainConfig, list[str]]:
    """`train` with the settings of the file, and notes on which were used and which were not.

    Settings of the config itself take precedence. Raises a ConfigError if the file cannot be used.
    """
    values = _read(path)
    kind = _word(values.get("distributed_type")).upper()
    if kind not in _KINDS:
        valid = ", ".join(sorted(_KINDS))
        raise ConfigError(f"{path}: distributed_type {kind} is not run by submit train; valid: {valid}")
    _check_parallelism(values.get("parallelism_config"), path)
    used: dict[str, Any] = {}
    precision = _precision(values, path)
    if train.mixed_precision == "auto":
        used["mixed_precision"] = precision
    words, unused = [f"{name} {value}" for name, value in used.items()], _unused(values)
    if kind == "FSDP" and not train.fsdp.enabled:
        found = fsdp_settings(values.get("fsdp_config") or {}, path)
        used["fsdp"], unused = found.config, [*found.unused, *unused]
        shown = found.config.model_dump(exclude_defaults=True).items()
        words.append("fsdp " + (", ".join(f"{name} {value}" for name, value in shown) or "off: NO_SHARD"))
    topology = [f"{name} {values[name]}" for name in _TOPOLOGY if values.get(name) is not None]
    taken, replaced = ", ".join(words) or "nothing", ", ".join(topology) or "no topology"
    notes = [f"{path}: {taken} used; {replaced} replaced by {shape}"]
    if unused:
        notes.append(f"{path}: not used: {', '.join(unused)}")
    return TrainConfig.model_validate(train.model_dump() | used), notes


def _read(path: Path) -> Mapping[str, Any]:
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"train.accelerate_config {path} cannot be read: {error}") from None
    if not isinstance(values, Mapping):
        raise ConfigError(f"train.accelerate_config {path} is not what `accelerate config` writes")
    return values


def _word(value: object) -> str:
    """A word of the file. Nothing, and the `false` that YAML 1.1 reads in a bare `no`, stand for "no"."""
    return "no" if value is None or value is False else str(value)


def _precision(values: Mapping[str, object], path: Path) -> str:
    """`mixed_precision`, or what files of earlier versions say with `fp16`."""
    old = "fp16" if str(values.get("fp16", "")).lower() == "true" else "no"
    precision = _word(values.get("mixed_precision", old)).lower()
    if precision not in ("no", "bf16", "fp16"):
        raise ConfigError(f"{path}: mixed_precision {precision} is none of no, bf16, fp16")
    return precision


def _check_parallelism(found: object, path: Path) -> None:
    """Raise a ConfigError for tensor, context or replicated parallelism, which submit train does not run."""
    sizes = found if isinstance(found, Mapping) else {}
    for name in ("dp_replicate_size", "tp_size", "cp_size", "sp_size"):
        key = f"parallelism_config_{name}"
        if str(sizes.get(key, 1)) != "1":
            raise ConfigError(f"{path}: {key} {sizes[key]} is not run by submit train; valid: 1")


def _unused(values: Mapping[str, object]) -> list[str]:
    """Settings of the file that would change how accelerate runs the program, and that are not used here."""
    compiled = values.get("dynamo_config")
    backend = compiled.get("dynamo_backend", "NO") if isinstance(compiled, Mapping) else "NO"
    return [] if str(backend).upper() in ("NO", "FALSE") else [f"dynamo_backend {backend}"]
