"""Batches and their loss: every learned token counts once, and a packed sample sees itself alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hpcjobs.run_folder.inputs import Inputs, table_parts
from hpcjobs.training.data.collate import IGNORED, collate
from hpcjobs.training.data.encode import Tokens
from hpcjobs.training.data.tokens import TokenFile, write_tokens
from hpcjobs.training.loss import Loss, PackedBy

pytestmark = pytest.mark.model
SAMPLES = [([2, 10, 11, 12], [0, 0, 1, 1]), ([2, 20, 21], [0, 1, 0]), ([2, 30, 31, 32, 33, 3], [0, 0, 0, 1, 0, 1])]


@pytest.fixture
def tokens(tmp_path: Path) -> TokenFile:
    table = pa.table({"index": list(range(len(SAMPLES))), "id": [str(n) for n in range(len(SAMPLES))]})
    (tmp_path / "data.arrow").write_bytes(b"".join(table_parts(table)))

    def encode(row: Any) -> Tokens:
        ids, learned = SAMPLES[row["index"]]
        return Tokens(ids, [bool(one) for one in learned])

    write_tokens(Inputs(tmp_path / "data.arrow"), encode, tmp_path / "tokens.arrow", lambda index: True)
    return TokenFile(tmp_path / "tokens.arrow")


def test_padded_rows(tokens: TokenFile) -> None:
    batch = collate([[0], [1]], tokens, pad=0)
    assert batch.inputs["input_ids"].tolist() == [[2, 10, 11, 12], [2, 20, 21, 0]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert batch.places.tolist() == [0, 1, 2]
    assert batch.labels.tolist() == [[IGNORED, 11, 12], [20, IGNORED, IGNORED]]
    assert (batch.targets, batch.tokens) == (3, 7)


def test_packed_rows(tokens: TokenFile) -> None:
    batch = collate([[0, 1], [2]], tokens, pad=0, packed=True)
    assert batch.inputs["input_ids"].tolist() == [[2, 10, 11, 12, 2, 20, 21], [2, 30, 31, 32, 33, 3, 0]]
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 2], [0, 1, 2, 3, 4, 5, 0]]
    assert "attention_mask" not in batch.inputs, "with one, transformers would not look at the positions"
    assert (batch.targets, batch.tokens) == (5, 13)


@pytest.mark.parametrize("way", list(PackedBy))
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_loss_is_that_of_each_token_by_itself(
    tiny: tuple[Any, Any], tokens: TokenFile, attention: str, way: PackedBy
) -> None:
    """Against log-softmax by hand on each sample alone."""
    import torch

    from hpcjobs.engines.loader import load_model

    model, _ = load_model("tiny")
    model.set_attn_implementation(attention)
    expected = 0.0
    for ids, learned in SAMPLES:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        expected += sum(-float(logits[n - 1, ids[n]]) for n in range(1, len(ids)) if learned[n])
    loss = Loss(model, torch.device("cpu"), way)
    assert loss(model, collate([[0], [1], [2]], tokens, 0)).item() == pytest.approx(expected, rel=1e-5)
    assert loss(model, collate([[0, 1], [2]], tokens, 0, packed=True)).item() == pytest.approx(expected, rel=1e-5)
    assert loss(model, collate([[2, 0, 1]], tokens, 0, packed=True)).item() == pytest.approx(expected, rel=1e-5)
