"""Checkpoints that prove themselves whole."""
