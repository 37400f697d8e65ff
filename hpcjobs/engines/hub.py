"""Hub models: found in the cache or downloaded before anything is queued; ranks load them offline."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from hpcjobs.config import Config
from hpcjobs.errors import ConfigError
from hpcjobs.run_folder.plan import PlanModel

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", re.ASCII)
_WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken"]
# Weights in subfolders are for other programs (onnx/, original/), and so are Mistral's consolidated ones.
_UNWANTED = ["*/*.safetensors", "consolidated*"]


def is_hub_id(name: str) -> bool:
    """Whether this could be the name of a model on the hub."""
    return bool(_HUB_ID.fullmatch(name)) and len(name) <= 96


def cache_folder(env: Mapping[str, str]) -> Path:
    """The hub's cache under an environment, by huggingface_hub's rules: HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME."""
    home = env.get("HF_HOME") or os.path.join(env.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    folder = env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    return Path(os.path.expandvars(folder)).expanduser().absolute()


@dataclass(frozen=True)
class HubModel:
    """A revision (None: main) of a model on the hub, and the cache folder."""

    name: str
    revision: str | None
    cache: Path
    remote_code: bool = False

    def cached(self) -> str | None:
        """The commit in the cache; None unless config, weights and tokenizer are there."""
        folder = self.folder()
        return folder.name if folder is not None and _is_whole(folder) else None

    def folder(self) -> Path | None:
        """The folder in the cache that has the config; None if there is none."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.name, "config.json", str(self.cache), self.revision)
        return Path(found).parent if isinstance(found, str) else None

    def fetch(self) -> str:
        """Download the model to the cache and return its commit. Raises a ConfigError if that fails."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils.tqdm import disable_progress_bars

        if not sys.stderr.isatty():
            disable_progress_bars()
        try:
            folder = Path(
                snapshot_download(
                    self.name, revision=self.revision, cache_dir=self.cache, ignore_patterns=_UNWANTED,
                    allow_patterns=[*_WANTED, "*.py"] if self.remote_code else _WANTED,
                )
            )  # fmt: skip
        except Exception as error:  # network, names, rights, disk: the library raises many kinds
            raise ConfigError(self._absent(f"{type(error).__name__}: {_first_line(error)}")) from None
        if not _is_whole(folder):
            raise ConfigError(self._absent(f"{folder} lacks config.json, safetensors weights or the tokenizer"))
        return folder.name

    def _absent(self, why: str) -> str:
        revision = ["--revision", self.revision] if self.revision else []
        command = shlex.join(["hf", "download", self.name, *revision, "--cache-dir", str(self.cache)])
        return (
            f"model {self.name!r}, revision {self.revision or 'main'}, is no asset and no folder here; it is not in "
            f"the cache {self.cache}, and the hub did not give it: {why}\n"
            f"next: {command} where there is a network, or set model.name to a folder with the model"
        )


def _is_whole(folder: Path) -> bool:
    """Whether a snapshot has all that a rank loads: config, every shard of the weights, a tokenizer."""
    names = {path.name for path in folder.iterdir() if path.exists()}
    shards = {"model.safetensors"}
    if "model.safetensors.index.json" in names:
        shards = set(json.loads((folder / "model.safetensors.index.json").read_bytes())["weight_map"].values())
    tokenizer = any(re.search(r"token|vocab|spiece|\.model$|tiktoken", name) for name in names)
    return "config.json" in names and shards <= names and tokenizer


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:400]


def at_commit(config: Config, model: PlanModel) -> Config:
    """The config with the planned commit as revision, instead of a branch that may move."""
    if not model.commit:
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"revision": model.commit})})


def go_offline(model: PlanModel, env: MutableMapping[str, str]) -> None:
    """Make this process load the planned model without the hub; call before huggingface_hub is imported.

    The hub would refuse requests of a thousand ranks. A user's own HF_HUB_OFFLINE is respected, and so is a cache on
    the node that has the commit.
    """
    env.setdefault("HF_HUB_OFFLINE", "1")
    if model.commit and model.cache is not None:
        inside = Path(f"models--{model.name.replace('/', '--')}", "snapshots", model.commit)
        if not (cache_folder(env) / inside).is_dir():
            env["HF_HUB_CACHE"] = model.cache
