"""The dummy engine: answers of each kind without torch, the same for the same question."""

from __future__ import annotations

from hpcjobs.engines.dummy import DummyEngine
from hpcjobs.requests import Completion, Pair, Request


def answer(request: Request) -> Completion:
    return next(DummyEngine().stream(iter([None, request])))


def test_choice_gives_a_log_likelihood_a_pair_and_the_likeliest_option() -> None:
    pairs = (Pair("Q:", " yes it is"), Pair("Q:", " no"), Pair("", " no"))
    said = answer(
        Request(index=3, id="a", prompt="Q:", task="choice", options=("yes it is", "no", "none"), pairs=pairs)
    )
    likelihood = said.likelihood
    assert likelihood is not None
    assert likelihood.tokens == (3, 1, 1)
    assert likelihood.options == ("yes it is", "no", "none")
    assert all(logprob <= 0 for logprob in likelihood.logprobs)
    assert len(set(likelihood.logprobs)) == 3  # the context counts
    assert said.text == likelihood.options[likelihood.logprobs.index(max(likelihood.logprobs))]
    assert said == answer_again(
        said, Request(index=3, id="a", prompt="Q:", task="choice", options=likelihood.options, pairs=pairs)
    )


def answer_again(said: Completion, request: Request) -> Completion:
    """The answer once more, with the first one's times."""
    again = answer(request)
    return Completion(
        index=again.index,
        text=again.text,
        finish_reason=again.finish_reason,
        prompt_tokens=again.prompt_tokens,
        completion_tokens=again.completion_tokens,
        error=again.error,
        started_at=said.started_at,
        seconds=said.seconds,
        texts=again.texts,
        likelihood=again.likelihood,
    )


def test_perplexity_gives_one_log_likelihood_of_the_whole_text() -> None:
    one, other = (
        answer(Request(index=0, id="a", prompt=text, task="perplexity")).likelihood for text in ("a b c d", "a b c e")
    )
    assert one is not None
    assert other is not None
    assert (len(one.logprobs), one.tokens) == (1, (4,))
    assert one.logprobs != other.logprobs


def test_repeats_are_different_answers_and_the_first_is_the_answer() -> None:
    said = answer(Request(index=0, id="a", prompt="Say it.", repeats=3))
    assert len(set(said.texts)) == 3
    assert said.text == said.texts[0] == answer(Request(index=0, id="a", prompt="Say it.")).text
    assert answer(Request(index=0, id="a", prompt="Say it.")).texts == ()
