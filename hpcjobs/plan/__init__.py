"""Plan: check a config against data, model and cluster before anything is queued."""
