"""What a request and its answer are where nothing is said, and how long an error may be."""

from __future__ import annotations

from hpcjobs.requests import Completion, GenerationConfig, Request, SampleError


def test_what_is_generated_unless_something_is_said() -> None:
    """Greedy, at most 256 tokens: docs/config.md says so, and runs of all versions are compared by it."""
    plain = GenerationConfig()
    assert (plain.max_new_tokens, plain.temperature, plain.stop) == (256, 0.0, ())
    assert (plain.top_p, plain.top_k, plain.min_p, plain.repetition_penalty) == (1.0, 0, 0.0, None)
    request = Request(index=3, id="x", prompt="p")
    assert (request.seed, request.task, request.repeats, request.generation, request.truncate) \
        == (0, "generate", 1, None, None)
    assert (request.options, request.pairs) == ((), ())


def test_an_answer_counts_nothing_that_is_not_said() -> None:
    made = Completion(index=3, text="t", finish_reason="stop")
    assert (made.prompt_tokens, made.completion_tokens, made.started_at, made.seconds) == (0, 0, 0.0, 0.0)
    assert (made.error, made.texts, made.likelihood) == (None, (), None)
    error = SampleError.of(ValueError("é" * 3000))
    assert (error.type, error.message) == ("ValueError", "é" * 2000)
    failed = Completion.failed(3, error, 5.0)
    assert (failed.index, failed.text, failed.finish_reason, failed.error) == (3, "", "error", error)
    assert (failed.started_at, failed.seconds, Completion.failed(3, error).started_at) == (5.0, 0.0, 0.0)
