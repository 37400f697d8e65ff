"""A model runs packed rows only if each sample has the logits there that it has alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.assets import ASSETS
from hpcjobs.plan.train import make_train_plan
from hpcjobs.run_folder.heartbeat import read_heartbeat
from hpcjobs.training.loss import PackedBy
from hpcjobs.training.packed_rows import PackingError, packed_by
from tests.trainings import ROWS, TrainingRanks, logs_of, train_config

pytestmark = pytest.mark.model
_LLAMA = {
    "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "head_dim": 8,
}  # fmt: skip
_LFM2 = _LLAMA | {"layer_types": ["conv", "full_attention"]}
_LONG = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "rope_theta": 1e4}


def model_of(kind: str, **values: Any) -> Any:
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        kind, **_LLAMA | values, bos_token_id=1, eos_token_id=2, pad_token_id=3, vocab_size=512
    )
    return transformers.AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma3_text"])
def test_windows_of_any_length_hold_in_packed_rows(kind: str) -> None:
    model = model_of(kind, sliding_window=100).train()
    assert packed_by(model, 256) is PackedBy.POSITIONS
    assert model.training


def test_a_model_that_looks_at_no_positions_is_given_masks() -> None:
    made = model_of("gpt_oss", sliding_window=100, num_local_experts=2, num_experts_per_tok=1)
    assert packed_by(made, 256) is PackedBy.MASKS


def test_a_model_whose_state_runs_from_one_sample_into_the_next_is_refused() -> None:
    with pytest.raises(PackingError, match=r"Lfm2ForCausalLM does not keep .* set train\.packing to false"):
        packed_by(model_of("lfm2", **_LFM2), 256)


def test_positions_by_the_length_of_the_row_are_refused_where_a_row_can_be_so_long() -> None:
    """Beyond the original context length a long sample changes the positions of the short one beside it."""
    rope = {**_LONG, "factor": 8.0, "original_max_position_embeddings": 100}
    phi = model_of("phi3", original_max_position_embeddings=100, rope_parameters=rope)
    assert packed_by(phi, 100) is PackedBy.POSITIONS
    with pytest.raises(PackingError, match="positions run from one into the next"):
        packed_by(phi, 256)


def test_a_training_that_would_be_wrong_ends_before_its_first_step(tmp_path: Path) -> None:
    shutil.copytree(ASSETS / "tiny", tmp_path / "lfm2")
    model_of("lfm2", **_LFM2).save_pretrained(tmp_path / "lfm2")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    config = train_config(tmp_path / "rows.jsonl", packing=True)
    model = config.model.model_copy(update={"name": str(tmp_path / "lfm2")})
    draft = make_train_plan(config.model_copy(update={"model": model}), tmp_path / "run")
    draft.write()
    with TrainingRanks(draft.paths, 1) as ranks:
        assert ranks.finish() != [0]
    assert "set train.packing to false" in logs_of(draft.paths)
    vitals = read_heartbeat(draft.paths.heartbeat("a", 0))
    assert vitals
    assert vitals.fatal, "no restart could help"
    assert not list(draft.paths.journals())
