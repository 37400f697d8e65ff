"""The worker: what one rank runs."""
