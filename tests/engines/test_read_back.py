"""A folder that does not hold what was to be stored is found out, by the name of the tensor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.engines.read_back import StoredError, prove_loads, prove_stored
from hpcjobs.engines.store import store_model
from tests.engines.test_store import SIZES, model_of

pytestmark = pytest.mark.model
UP, FILE = "model.layers.1.mlp.up_proj.weight", "model.safetensors"
Tensors = dict[str, Any]


@pytest.fixture
def stored(tmp_path: Path) -> Tensors:
    """A model of two layers, stored in bfloat16 in `tmp_path`; what its files hold."""
    import torch

    model = model_of("llama", SIZES | {"tie_word_embeddings": True})
    return store_model(model, model.state_dict(), tmp_path, torch.bfloat16)


def one_bit(weight: Any) -> Any:
    import torch

    other = weight.clone()
    other.view(torch.int16)[-1, -1] ^= 1
    return other


CHANGES: list[tuple[Callable[[Tensors], Tensors], str]] = [
    (lambda held: held | {UP: one_bit(held[UP])}, f"{UP} in {FILE} has other values"),
    (lambda held: held | {UP: held[UP].float()}, f"{UP} is float32, not bfloat16"),
    (lambda held: held | {UP: held[UP][1:].clone()}, rf"{UP} is \[23, 16\], not \[24, 16\]"),
    (lambda held: held | {UP: held[UP].T.contiguous()}, rf"{UP} is \[16, 24\], not \[24, 16\]"),
    (lambda held: {name: one for name, one in held.items() if name != UP}, f"{UP} is not there"),
    (lambda held: held | {"more": held[UP].clone()}, "has more, which was not to be stored"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_a_change_is_named(
    tmp_path: Path, stored: Tensors, change: Callable[[Tensors], Tensors], message: str
) -> None:
    from safetensors.torch import load_file, save_file

    prove_stored(tmp_path, stored)
    save_file(change(load_file(tmp_path / FILE)), tmp_path / FILE, {"format": "pt"})
    with pytest.raises(StoredError, match=message):
        prove_stored(tmp_path, stored)


def test_a_file_that_was_cut_off_is_named(tmp_path: Path, stored: Tensors) -> None:
    with (tmp_path / FILE).open("r+b") as file:
        file.truncate((tmp_path / FILE).stat().st_size - 2)
    with pytest.raises(StoredError, match=rf"{FILE} is cut off.*model\.norm\.weight|{FILE} is cut off"):
        prove_stored(tmp_path, stored)


def test_of_weights_that_share_memory_one_is_enough(tmp_path: Path, stored: Tensors) -> None:
    import torch

    prove_stored(tmp_path, stored | {"lm_head.weight": stored["model.embed_tokens.weight"]})
    with pytest.raises(StoredError, match=r"lm_head\.weight is not there"):
        prove_stored(tmp_path, stored | {"lm_head.weight": torch.zeros(40, 16)})


def test_empty_and_single_numbers_are_compared_too(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    held = {"none": torch.zeros(0, 3), "one": torch.tensor(3), "yes": torch.tensor([True, False])}
    save_file(held, tmp_path / FILE)
    prove_stored(tmp_path, held)
    with pytest.raises(StoredError, match="one in"):
        prove_stored(tmp_path, held | {"one": torch.tensor(4)})


def test_what_transformers_would_not_load_whole_is_named(tmp_path: Path, stored: Tensors) -> None:
    prove_loads(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(StoredError, match=r"does not load whole.*not in its files.*model\.layers\.2\."):
        prove_loads(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    with pytest.raises(StoredError, match=r"does not load whole.*not used by the model: model\.layers\.1\."):
        prove_loads(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"intermediate_size": 25}))
    with pytest.raises(StoredError, match=r"does not load whole.*of another shape: model\.layers\.0\.mlp"):
        prove_loads(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "nothing"}))
    with pytest.raises(StoredError, match="transformers cannot load it"):
        prove_loads(tmp_path)
