"""The ledger: create-only files that say which rank holds which chunk, and which of its samples count."""
