"""The ledger: create-only files that say who holds which chunk and what of it counts."""
