"""The model of a config is checked and told apart before anything is queued; the hub's are in test_hub.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcjobs.config import Config
from hpcjobs.config.layers import dotted_layer
from hpcjobs.config.problems import validate
from hpcjobs.errors import ConfigError
from hpcjobs.plan.model import checked_model, fetched


def config(name: str, **more: object) -> Config:
    keys = {"model.name": name, "task.prompt": "x"} | {key.replace("__", "."): value for key, value in more.items()}
    return validate(dotted_layer(keys, "here"))


def test_an_asset_has_the_hash_of_its_weights() -> None:
    facts = checked_model(config("tiny"))
    assert (facts.name, facts.engine, len(facts.weights_sha256 or "")) == ("tiny", "auto", 64)
    assert facts.likely_engine
    assert fetched(facts, config("tiny")) == facts, "there is nothing to fetch"


def test_the_dummy_needs_no_model_and_likelihoods_have_their_engine() -> None:
    assert checked_model(config("", model__engine="dummy")).name == "dummy"
    choice = config("tiny", task__type="choice", task__choices=["a", "b"], task__target="a")
    assert checked_model(choice).engine == "scoring"


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.name is not set: a folder, a hub id, or the asset tiny"):
        checked_model(config(""))
    with pytest.raises(ConfigError, match=r"has no config\.json: not a saved transformers model"):
        checked_model(config(str(tmp_path)))
    with pytest.raises(ConfigError, match="does not exist"):
        checked_model(config("/no/such/model"))
    with pytest.raises(ConfigError, match=r"model\.name 'tinny' is no asset and no folder here .did you mean 'tiny'"):
        checked_model(config("tinny"))
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError, match=r"model folder .*/mien does not exist .did you mean 'mine'"):
        checked_model(config(str(tmp_path / "mien")))
    file = tmp_path / "mine" / "model.safetensors"
    file.touch()
    with pytest.raises(ConfigError, match=r"model\.name .*safetensors is a file: a model is a folder with"):
        checked_model(config(str(file)))
    (tmp_path / "mine" / "config.json").touch()
    with pytest.raises(ConfigError, match=rf"is a file: the model is its folder, {tmp_path / 'mine'}$"):
        checked_model(config(str(file)))


def test_a_name_in_a_folder_that_is_here_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert checked_model(config("org/name")).cache
    (tmp_path / "org").mkdir()
    with pytest.raises(ConfigError, match="model folder org/name does not exist"):
        checked_model(config("org/name"))
