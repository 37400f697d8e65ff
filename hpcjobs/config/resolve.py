"""Resolve layers into a validated Config, and write a Config as YAML."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hpcjobs.assets import shipped
from hpcjobs.config.checks import checked_name
from hpcjobs.config.layers import Layer, file_layer, merge_layers
from hpcjobs.config.literal_secrets import check_no_secrets
from hpcjobs.config.problems import validate
from hpcjobs.config.schema import Config
from hpcjobs.config.shell import shell_layer
from hpcjobs.config.yaml import dump_yaml
from hpcjobs.errors import ConfigError, did_you_mean


def defaults_folder() -> Path:
    """The `configs/` folder that ships with hpcjobs."""
    return shipped("configs")


def user_config() -> Path:
    """The path of the user's own config file, which may not exist."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "hpcjobs" / "config.yaml"


def profile_file(profile: str) -> Path:
    """The file of a cluster profile, from `configs/clusters/` here or as shipped. Raises a ConfigError if there is
    none.
    """
    checked_name(profile, "profile")
    folders = (Path("configs/clusters"), defaults_folder() / "clusters")
    for folder in folders:
        if (folder / f"{profile}.yaml").is_file():
            return folder / f"{profile}.yaml"
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    raise ConfigError(f"no profile {profile!r}{did_you_mean(profile, known)}; there are: {', '.join(known) or 'none'}")


def resolve(
    job: str, config: Path | Layer | None, profile: str | None, upper: Sequence[Layer]
) -> tuple[Config, dict[str, str]]:
    """The config of a job kind (eval, train...), and where each value came from (dotted key -> place).

    Order: built-in defaults < SBATCH_* of the shell < profile < user's config < `config` (default: the one shipped for
    the job kind) < `upper`. Raises a ConfigError.
    """
    shell = shell_layer(os.environ)
    layers = [shell, *([file_layer(profile_file(profile))] if profile else [])]
    if user_config().is_file():
        layers.append(file_layer(user_config()))
    default = defaults_folder() / f"{job}.yaml"
    if config is not None:
        layers.append(config if isinstance(config, Layer) else file_layer(config))
    elif default.is_file():
        layers.append(_without(file_layer(default), shell))
    merged = merge_layers([*layers, *upper])
    resolved = validate(merged)
    check_no_secrets(resolved, merged.places)
    return resolved, merged.places


def _without(layer: Layer, other: Layer) -> Layer:
    """The layer without keys of `cluster` that `other` has: what ships is nobody's choice."""
    taken = other.values.get("cluster", {})
    kept = {key: value for key, value in layer.values.get("cluster", {}).items() if key not in taken}
    places = {key: place for key, place in layer.places.items() if key not in other.places}
    return Layer(layer.values | {"cluster": kept}, places)


def dump(config: Config) -> str:
    """The config as YAML. `read_config` reads an equal config back."""
    return dump_yaml(config.model_dump(mode="json"))


def read_config(path: Path) -> Config:
    """The config in a run folder. Raises a ConfigError, also for an empty file, which would be all defaults."""
    if path.is_file() and not path.read_bytes().strip():
        raise ConfigError(f"{path} cannot be read: it is empty")
    return validate(file_layer(path))
