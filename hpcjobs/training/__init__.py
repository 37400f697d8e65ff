"""Supervised fine-tuning: tokenised rows, their order, the training loop, and verified checkpoints."""
