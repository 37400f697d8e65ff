"""What is asked: rows, prompts, few-shot examples, seeds."""
