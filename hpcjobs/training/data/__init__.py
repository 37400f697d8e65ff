"""From rows to batches of tokens, and their order."""
