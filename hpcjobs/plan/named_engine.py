"""Refuse an engine that cannot run the config's model, before anything is queued."""

from __future__ import annotations

from hpcjobs.config import Config
from hpcjobs.errors import ConfigError
from hpcjobs.plan.likely_engine import may_run
from hpcjobs.plan.model import model_folder
from hpcjobs.run_folder.files import read_json


def check_engine(config: Config) -> None:
    """Raise a ConfigError if `model.engine` names an engine that cannot run the model; one that is not here passes."""
    engine, folder = config.model.engine, model_folder(config)
    generates = config.task.type in ("generate", "lm_eval") and engine in ("loop", "transformers")
    if not generates or config.model.trust_remote_code or folder is None or not (folder / "config.json").is_file():
        return
    model = read_json(folder / "config.json")
    if not may_run(engine, model):
        kind = model.get("model_type")
        raise ConfigError(
            f"model.engine {engine!r} cannot run {config.model.name!r} ({kind}): 'auto' or 'generate' can"
        )
