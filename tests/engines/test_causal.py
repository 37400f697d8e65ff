"""Models that are no causal language models are refused: by config.json when planning, by a trial when loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.config import GenerationConfig
from hpcjobs.config.layers import dotted_layer
from hpcjobs.config.problems import validate
from hpcjobs.engines.causal import check_config, check_model
from hpcjobs.engines.pick import EngineSpec, make_engine
from hpcjobs.errors import ConfigError
from hpcjobs.plan.by_kind import PLANNERS

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.model

SMALL: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3,
}  # fmt: skip
XLNET = {"vocab_size": 64, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}
XLM = {"vocab_size": 64, "emb_dim": 32, "n_layers": 2, "n_heads": 4, "n_langs": 1}


def small(kind: str, **values: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **values)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def saved(model: Any, folder: Path) -> dict[str, Any]:
    """The config.json that transformers writes."""
    model.config.save_pretrained(folder)
    written: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return written


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("bert", SMALL), ("roberta", SMALL), ("electra", SMALL), ("xlnet", XLNET), ("xlm", XLM),
        ("gemma3_text", SMALL | {"head_dim": 8, "num_key_value_heads": 2, "use_bidirectional_attention": True}),
    ],
)  # fmt: skip
def test_a_model_that_looks_ahead_is_refused(tmp_path: Path, kind: str, values: dict[str, Any]) -> None:
    model = small(kind, **values)
    with pytest.raises(ConfigError, match=rf"\({kind}\).*set model\.name to a causal language model"):
        make_engine(model, None, GenerationConfig(), EngineSpec())
    with pytest.raises(ConfigError, match=f"model 'm' .{kind}. .*set model.name"):
        check_config("m", saved(model, tmp_path))


@pytest.mark.parametrize(
    ("kind", "values"),
    [("bert", SMALL | {"is_decoder": True}), ("xlm", XLM | {"causal": True}), ("gpt_neox", SMALL)],
)
def test_a_causal_one_is_not(tmp_path: Path, kind: str, values: dict[str, Any]) -> None:
    model = small(kind, **values)
    check_model(model)
    check_config("m", saved(model, tmp_path))


def test_every_encoder_decoder_of_transformers_is_refused() -> None:
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES as NAMES

    configs = {kind: transformers.AutoConfig.for_model(kind) for kind in NAMES if kind != "encoder-decoder"}
    pairs = {kind: config for kind, config in configs.items() if config.is_encoder_decoder}
    assert {"t5", "bart", "marian", "m2m_100", "switch_transformers"} <= pairs.keys()
    for kind, config in pairs.items():
        with pytest.raises(ConfigError, match=f"model 'm' .{kind}. is an encoder-decoder"):
            check_config("m", json.loads(config.to_json_string()))


@pytest.mark.parametrize("job", ["eval", "generate", "train"])
def test_planning_refuses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    (tmp_path / "m/config.json").write_text(json.dumps({"model_type": "t5", "is_encoder_decoder": True}))
    (tmp_path / "d.jsonl").write_text('{"q": "x", "a": "y", "messages": []}\n')
    keys: dict[str, object] = {"model.name": "m", "data.name": "d.jsonl", "task.prompt": "{{ q }}"}
    keys |= {"task.target": "{{ a }}"} if job != "generate" else {}
    keys |= {"task.metrics": ["exact_match"]} if job == "eval" else {}
    with pytest.raises(ConfigError, match=r"model '.*m' \(t5\) is an encoder-decoder"):
        PLANNERS[job](validate(dotted_layer(keys, "here")), [], None)
