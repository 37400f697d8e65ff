"""Supervised fine-tuning: rows to tokens, their order, the loop, and checkpoints that prove themselves."""
