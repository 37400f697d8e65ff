"""The worker: what one rank runs, whoever started it."""
