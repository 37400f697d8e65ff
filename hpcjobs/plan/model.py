"""Check the model of a config before anything is queued: whether it exists, and its hash or commit."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hpcjobs.assets import ASSETS
from hpcjobs.config import Config
from hpcjobs.config.path_names import a_models_file, is_path, near_file
from hpcjobs.engines.fingerprint import weight_digests, weights_fingerprint
from hpcjobs.engines.generation_keys import generation_values
from hpcjobs.engines.hub import HubModel, cache_folder, is_hub_id
from hpcjobs.engines.registry import check_task, own_model_engine
from hpcjobs.errors import ConfigError
from hpcjobs.plan.likely_engine import likely_engine
from hpcjobs.plan.model_files import check_model_files
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.plan import PlanModel


def checked_model(config: Config) -> PlanModel:
    """What plan.json records of the model: name, engine, and a hash of its weights or a commit. Raises a ConfigError.
    """
    model = config.model
    own = own_model_engine(model.engine)
    if own and config.task.type != "lm_eval":
        check_task(own, model.engine, config.task.type)
    scores = config.task.type in ("choice", "perplexity") and not own
    engine = "scoring" if scores else model.engine
    facts = PlanModel(name=model.name or engine, engine=engine, revision=model.revision, dtype=model.dtype)
    if engine == "dummy":
        return replace(facts, name="dummy")
    if own and not getattr(own, "weights", True):
        return facts
    assets = sorted(path.parent.name for path in ASSETS.glob("*/config.json"))
    if not model.name:
        raise ConfigError(f"model.name is not set: a folder, a hub id, or the asset {', '.join(assets)}")
    folder = ASSETS / model.name if model.name in assets else Path(model.name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ConfigError(f"model folder {folder} has no config.json: not a saved transformers model")
        check_model_files(folder)
        if engine == "auto" and config.task.type in ("generate", "lm_eval"):
            _, generation = generation_values(folder)
            likely = likely_engine(config, read_json(folder / "config.json"), generation)
            facts = replace(facts, likely_engine=likely)
        files = weight_digests(folder, model.verify_weights == "full")
        return replace(facts, weights_sha256=weights_fingerprint(folder), files=files)
    hub = _hub_model(config)
    commit = hub.cached() if is_hub_id(model.name) else None
    if commit is None:
        _check_hub_name(model.name, assets)
    return replace(facts, cache=str(hub.cache), commit=commit)


def _check_hub_name(name: str, assets: Sequence[str]) -> None:
    """Raise a ConfigError for what is no name on the hub, instead of asking it for a while."""
    if Path(name).expanduser().is_file():
        raise ConfigError(f"model.name {name} is {a_models_file(name)}")
    if not is_hub_id(name) or is_path(name):
        raise ConfigError(f"model folder {name} does not exist{near_file(name, assets)}")
    here = [*assets, *(path.parent.name for path in Path().glob("*/config.json"))]
    if "/" not in name and (typo := difflib.get_close_matches(name, here, n=1, cutoff=0.8)):
        raise ConfigError(f"model.name {name!r} is no asset and no folder here (did you mean {typo[0]!r}?)")


def model_folder(config: Config) -> Path | None:
    """The folder of a config's model: a shipped one, a folder, or a snapshot in the hub's cache; else None."""
    name, own = config.model.name, own_model_engine(config.model.engine)
    if not name or own:
        return None
    if (ASSETS / name / "config.json").is_file():
        return ASSETS / name
    if Path(name).is_dir():
        return Path(name)
    return _hub_model(config).folder() if is_hub_id(name) else None


def _hub_model(config: Config) -> HubModel:
    """The hub model of a config, in the cache that its ranks will use."""
    model, cache = config.model, cache_folder(os.environ | config.cluster.env)
    return HubModel(model.name, model.revision, cache, model.trust_remote_code)


def fetched(facts: PlanModel, config: Config) -> PlanModel:
    """The facts with the commit of a hub model, downloaded to the cache if needed. Raises a ConfigError if that fails.
    """
    lacking = facts.cache is not None and not facts.commit
    return replace(facts, commit=_hub_model(config).fetch()) if lacking else facts
