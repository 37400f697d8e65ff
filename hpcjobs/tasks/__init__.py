"""Tasks: rows, prompts, few-shot examples, seeds."""
