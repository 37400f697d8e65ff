"""Run by test_connector: the short training loop that the connector was made for."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from hpcjobs.connector import AccelerateConnector
from hpcjobs.distributed.group import leave_group

STEPS, GLOBAL_BATCH = 30, 4


def main(folder: Path) -> None:
    torch.manual_seed(0)
    connector = AccelerateConnector("tiny", mixed_precision="no")
    connector.load_model_once()
    model, tokenizer = connector.model, connector.tokenizer
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Say: it"}], add_generation_prompt=True, tokenize=False
    )
    ids = torch.tensor(tokenizer(text + "learned<|end|>", add_special_tokens=False).input_ids)
    rows = [{"input_ids": ids, "labels": ids} for _ in range(STEPS * GLOBAL_BATCH)]
    optimizer: Any = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loader: Any = DataLoader(
        rows,  # type: ignore[arg-type]
        batch_size=GLOBAL_BATCH // connector.state.num_processes,
    )
    model, optimizer, loader = connector.prepare_for_training(model, optimizer, loader)
    losses = []
    for batch in loader:
        loss = model(**batch).loss
        connector.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    connector.save_model(model, folder / "model")
    if connector.is_main_process:
        (folder / "losses.json").write_text(json.dumps(losses))
    leave_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
