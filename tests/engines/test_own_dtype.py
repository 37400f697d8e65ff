"""The type that a model's own weights have, and the one in which a training stores its model."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.engines.own_dtype import own_dtype, save_dtype


def folder_of(path: Path, config: dict[str, Any], **tensors: str) -> Path:
    """A model folder whose weights are of these types, each named for its number of elements."""
    sizes = {"F32": 4, "BF16": 2, "F16": 2, "F64": 8}
    header: dict[str, Any] = {}
    place = 0
    for name, dtype in tensors.items():
        size = int(name[1:]) * sizes[dtype]
        header[name] = {"dtype": dtype, "shape": [int(name[1:])], "data_offsets": [place, place := place + size]}
    text = json.dumps(header).encode()
    (path / "config.json").write_text(json.dumps(config))
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(place))
    return path


@pytest.mark.parametrize(
    ("config", "tensors", "own"),
    [
        ({"dtype": "bfloat16"}, {"a9": "F32"}, "bfloat16"),
        ({"torch_dtype": "float16"}, {"a9": "F32"}, "float16"),
        ({"torch_dtype": "torch.bfloat16"}, {"a9": "F32"}, "bfloat16"),
        ({"dtype": None, "text_config": {"dtype": "bfloat16"}}, {"a9": "F32"}, "bfloat16"),
        ({}, {"a9": "BF16", "b2": "F32"}, "bfloat16"),
        ({"dtype": "auto"}, {"a2": "BF16", "b9": "F16"}, "float16"),
        ({"dtype": "float64"}, {"a9": "F64", "b1": "BF16"}, "float32"),
        ({}, {}, "float32"),
    ],
)
def test_it_is_what_the_config_says_else_what_most_weights_have(
    tmp_path: Path, config: dict[str, Any], tensors: dict[str, str], own: str
) -> None:
    assert own_dtype(folder_of(tmp_path, config, **tensors)) == own


def test_weights_that_cannot_be_read_are_not_its_business(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert own_dtype(tmp_path) == "float32"


def test_the_config_of_the_run_wins_and_random_weights_have_no_base(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"dtype": "bfloat16"}, a1="BF16")
    trains: dict[str, Any] = {
        "auto": {}, "random": {"init": "random"}, "named": {"save_dtype": "float16", "init": "random"},
    }  # fmt: skip
    of = {name: validate(Layer({"train": train})) for name, train in trains.items()}
    assert [save_dtype(config, folder) for config in of.values()] == ["bfloat16", "float32", "float16"]
    assert save_dtype(of["auto"], None) is None
    assert save_dtype(of["named"], None) == "float16"
