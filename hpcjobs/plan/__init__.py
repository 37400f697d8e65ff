"""Plan: what a config comes to, checked before anything is queued."""
