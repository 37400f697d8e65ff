"""A model whose weights are not those of its config is never run: transformers alone warns, and makes some up."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.assets import ASSETS
from hpcjobs.config import WeightsConfig
from hpcjobs.engines.loader import ModelSource, load_model
from hpcjobs.errors import ConfigError

pytestmark = pytest.mark.model
UP = "model.layers.1.mlp.up_proj.weight"
Tensors = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ASSETS / "tiny", tmp_path / "m")
    return tmp_path / "m"


def change(folder: Path, edit: Callable[[Tensors], Tensors]) -> None:
    """Write the folder's weights again, edited."""
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    save_file(edit(load_file(file)), file, {"format": "pt"})


def loaded(folder: Path, **weights: Any) -> Any:
    return load_model(ModelSource(str(folder), weights=WeightsConfig(**weights)))[0]


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


def test_a_missing_tensor_is_named(folder: Path) -> None:
    change(folder, without(UP))
    with pytest.raises(ConfigError, match=rf"1 not in its files, and would be random numbers: {UP}"):
        loaded(folder)
    assert loaded(folder, allow_missing=("*.up_proj.weight",)) is not None


def test_a_renamed_tensor_is_named_twice_and_can_be_renamed_back(folder: Path) -> None:
    before = loaded(folder).state_dict()
    change(folder, lambda tensors: {f"module.{key}": value for key, value in tensors.items()})
    with pytest.raises(ConfigError, match=r"and \d+ more.*in its files and not used by the model: module\."):
        loaded(folder)
    after = loaded(folder, rename={r"^module\.": ""}).state_dict()
    assert all(after[name].equal(tensor) for name, tensor in before.items())


def test_another_shape_is_named_with_both(folder: Path) -> None:
    change(folder, lambda tensors: tensors | {UP: tensors[UP][:-1].clone()})
    with pytest.raises(ConfigError, match=rf"1 of another shape: {UP} is \[\d+, \d+\], not \[\d+, \d+\]"):
        loaded(folder)


def test_a_tensor_that_the_model_leaves_unused_is_named(folder: Path) -> None:
    change(folder, lambda tensors: tensors | {"model.layers.9.mlp.up_proj.weight": tensors[UP].clone()})
    with pytest.raises(ConfigError, match=r"1 in its files and not used by the model: model\.layers\.9"):
        loaded(folder)
    assert loaded(folder, allow_unexpected=("model.layers.9.*",)) is not None


def test_the_weights_of_another_kind_of_model_are_named(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    gpt2 = {"model_type": "gpt2", "n_embd": config["hidden_size"], "n_layer": 1, "n_head": 2}
    (folder / "config.json").write_text(json.dumps(gpt2 | {"vocab_size": config["vocab_size"]}))
    with pytest.raises(ConfigError, match=r"not in its files.*transformer\."):
        loaded(folder)


def test_a_file_that_was_cut_off_is_an_error(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(ConfigError, match=r"model\.safetensors is cut off: 5000 .*model\.\S+ is the first of"):
        loaded(folder)


def test_buffers_of_older_checkpoints_are_no_problem(folder: Path) -> None:
    change(folder, lambda tensors: tensors | {"model.layers.0.self_attn.rotary_emb.inv_freq": tensors[UP][0].clone()})
    assert loaded(folder) is not None


def test_tied_weights_may_be_stored_once_or_twice(tmp_path: Path) -> None:
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        tie_word_embeddings=True,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "m")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ASSETS / "tiny" / name, tmp_path / "m" / name)
    assert loaded(tmp_path / "m") is not None
    change(tmp_path / "m", lambda tensors: tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()})
    assert loaded(tmp_path / "m") is not None


@pytest.mark.parametrize(("targets", "fits"), [((), True), (("q_proj",), True), (("q_proj", "lm_head"), False)])
def test_an_adapter_on_tied_weights_is_refused(targets: tuple[str, ...], fits: bool) -> None:
    import transformers

    from hpcjobs.config import Config
    from hpcjobs.training.setup import adapted

    base = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            tie_word_embeddings=True,
        )
    )  # fmt: skip
    config = Config.model_validate({"train": {"lora": {"rank": 2, "target_modules": targets}}})
    if fits:
        assert adapted(base, config) is not None
    else:
        with pytest.raises(ConfigError, match=r"train\.lora\.target_modules: lm_head shares its weights"):
            adapted(base, config)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("q_proj", "v_prj"), r"no linear layer 'v_prj' \(did you mean 'v_proj'\?\)"),
        (("input_layernorm",), "no linear layer 'input_layernorm'"),
        (("conv",), "peft cannot adapt this model"),
    ],
)
def test_a_target_that_peft_would_pass_over_is_refused_at_the_start(targets: tuple[str, ...], message: str) -> None:
    """Where the plan cannot tell: a kind of model that it has no layout of."""
    import torch
    import transformers

    from hpcjobs.config import Config
    from hpcjobs.training.setup import adapted

    base = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
        )
    )
    base.conv = torch.nn.Bilinear(2, 2, 2)
    base.conv.weight = torch.nn.Parameter(torch.zeros(2, 2))
    config = Config.model_validate({"train": {"lora": {"rank": 2, "target_modules": targets}}})
    with pytest.raises(ConfigError, match=message) as raised:
        adapted(base, config)
    assert getattr(raised.value, "fatal", False)
