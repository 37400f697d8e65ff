"""The training loop that this project grew from, word for word, with what it needs around it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from hpcjobs.connector import AccelerateConnector
from hpcjobs.distributed.group import leave_group

model_name, output_dir = "tiny", Path(sys.argv[1])
torch.manual_seed(0)

connector = AccelerateConnector(model_name, mixed_precision="no")
connector.load_model_once()

tokenizer = connector.tokenizer
chat = [{"role": "user", "content": "Say: it"}]
prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
ids = torch.tensor(tokenizer(prompt + "learned<|end|>", add_special_tokens=False).input_ids)
rows: Any = [{"input_ids": ids, "labels": ids} for _ in range(120)]
model: Any = connector.model
optimizer: Any = torch.optim.AdamW(model.parameters(), lr=1e-3)
train_loader: Any = DataLoader(rows, batch_size=2)

# Prepare for training
model, optimizer, train_loader = connector.prepare_for_training(
    model, optimizer, train_loader
)

# Training loop
for batch in train_loader:
    loss = model(**batch)
    connector.backward(loss)  # Automatic gradient sync
    optimizer.step()
    optimizer.zero_grad()

# Save model
connector.save_model(model, output_dir)
leave_group()
