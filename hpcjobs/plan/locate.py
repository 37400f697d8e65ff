"""Make the paths in a config absolute."""

from __future__ import annotations

from pathlib import Path

from hpcjobs.assets import asset_names, data_suffix, shipped
from hpcjobs.config import Config
from hpcjobs.errors import ConfigError
from hpcjobs.tasks.file_names import is_pattern


def located(config: Config) -> Config:
    """The config with absolute paths: ranks run in another folder. Raises a ConfigError for a missing config file."""
    data = config.data.model_copy(update={"name": _located_names(config.data.name)})
    shots = config.task.few_shot
    if shots.data:
        shots = shots.model_copy(update={"data": locate(shots.data)})
        config = config.model_copy(update={"task": config.task.model_copy(update={"few_shot": shots})})
    files = {name: getattr(config.train, name) for name in ("then_eval", "accelerate_config")}
    train = {name: _config_file(f"train.{name}", path) for name, path in files.items() if path}
    config = config.model_copy(update={"train": config.train.model_copy(update=train)})
    model_path = Path(config.model.name).expanduser()
    name = str(model_path.resolve()) if config.model.name and model_path.is_dir() else config.model.name
    return config.model_copy(update={"data": data, "model": config.model.model_copy(update={"name": name})})


def _config_file(key: str, name: str) -> str:
    """The absolute path of a file named in a config: in the working directory or, as `configs/eval.yaml`, shipped."""
    path = Path(name).expanduser()
    found = next((one for one in (path, shipped("configs").parent / path) if one.is_file()), None)
    if found is None:
        raise ConfigError(f"{key}: there is no file {name}")
    return str(found.resolve())


def _located_names(name: str | tuple[str, ...]) -> str | tuple[str, ...]:
    return locate(name) if isinstance(name, str) else tuple(map(locate, name))


def locate(name: str) -> str:
    """`name` as an absolute path if it is a path; assets and hub ids are returned unchanged."""
    if name in asset_names() or not name:
        return name
    path = Path(name).expanduser()
    if path.exists() or data_suffix(name) or is_pattern(name) or path.is_absolute() or name.startswith("."):
        return str(path.resolve())
    return name
