"""The batched decode loop: finished rows leave the batch and new ones take their places."""
