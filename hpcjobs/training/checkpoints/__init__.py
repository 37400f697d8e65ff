"""Checkpoints that can be verified."""
