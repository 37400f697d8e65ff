"""Which tokens are scored, and behind which, under a tokenizer of one token a character."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hpcjobs.requests import Pair, Request

pytestmark = pytest.mark.model
FIRST, LAST = ord("^"), ord("$")


class Letters:
    """One token a letter, none for `?`; `^` comes first unless it is told not to add special tokens."""

    chat_template: str | None = None
    all_special_ids: tuple[int, ...] = ()

    def __init__(self, first: int | None = FIRST, last: int | None = LAST, adds: bool = False) -> None:
        self.bos_token_id, self.eos_token_id, self._adds = first, last, adds

    def __call__(self, text: str, add_special_tokens: bool = True) -> Any:
        lead = [FIRST] if self._adds and add_special_tokens else []
        return SimpleNamespace(input_ids=lead + [ord(letter) for letter in text if letter != "?"])

    def convert_ids_to_tokens(self, token: int) -> str:
        return chr(token)

    def decode(self, ids: Any) -> str:
        return "".join(map(chr, ids))


def builder(longest: int = 10, **how: Any) -> Any:
    from hpcjobs.engines.scoring.boundary import SpanBuilder

    made: Any = Letters(**how)
    return SpanBuilder(made, longest)


def told(span: Any) -> tuple[str, str]:
    """The tokens behind which, and the tokens that are scored."""
    context = span.ids[: len(span.ids) - span.scored]
    assert (span.inputs, span.targets) == (span.ids[:-1], span.ids[len(span.ids) - span.scored :])
    assert span.inputs[span.first] == context[-1], "what predicts the first of them"
    return "".join(map(chr, context)), "".join(map(chr, span.targets))


@pytest.mark.parametrize(
    ("context", "continuation", "scored"),
    [
        ("ab", "cd", ("ab", "cd")), ("ab ", "cd", ("ab", " cd")), ("ab \n", "cd", ("ab", " \ncd")),
        ("", "cd", ("^", "cd")), ("", "^cd", ("^", "cd")), (" ", "cd", (" ", "cd")), ("a?", "c", ("a", "c")),
    ],
)  # fmt: skip
def test_a_continuation_is_scored_behind_its_context(context: str, continuation: str, scored: tuple[str, str]) -> None:
    assert told(builder().pair(Pair(context, continuation))) == scored


def test_the_first_token_of_a_continuation_alone_may_be_the_one_before_all() -> None:
    for continuation, scored in (("cd", "cd"), ("^cd", "cd"), ("cd^", "cd^"), ("c^d", "c^d"), ("^^d", "^d")):
        for adds in (False, True):
            assert told(builder(adds=adds).pair(Pair("", continuation))) == ("^", scored)


def test_a_token_that_the_model_does_not_know_is_refused() -> None:
    from hpcjobs.engines.scoring.boundary import SpanBuilder

    made: Any = Letters()
    known = SpanBuilder(made, 10, ord("d"))
    assert told(known.pair(Pair("ab", "c"))) == ("ab", "c")
    for ask in (lambda: known.pair(Pair("ab", "cd")), lambda: known.windows("abd")):
        with pytest.raises(ValueError, match=r"no embedding for the token 'd' \(100\): it has 100"):
            ask()


def test_contexts_are_kept_for_one_question_alone_and_read_once_for_it() -> None:
    read = list[str]()

    class Counted(Letters):
        def __call__(self, text: str, add_special_tokens: bool = True) -> Any:
            read.append(text)
            return super().__call__(text, add_special_tokens)

    from hpcjobs.engines.scoring.boundary import SpanBuilder

    made: Any = Counted()
    spans = SpanBuilder(made, 10)
    for _ in range(2):
        spans.spans(request(pairs=(Pair("ab", "c"), Pair("ab", "d"), Pair("ef", "g"))))
    assert read == ["ab", "abc", "abd", "ef", "efg"] * 2


def test_a_chat_has_the_first_token_of_its_template_alone() -> None:
    class Chats(Letters):
        chat_template = "{}"

        def apply_chat_template(self, chat: Any, add_generation_prompt: bool, **_: Any) -> str:
            return "".join(turn["content"] for turn in chat) + (">" if add_generation_prompt else "")

    from hpcjobs.engines.scoring.boundary import SpanBuilder

    made: Any = Chats(adds=True)
    assert told(SpanBuilder(made, 10).pair(Pair([{"role": "user", "content": "ab"}], "cd"))) == ("ab>", "cd")
    assert told(SpanBuilder(made, 10).pair(Pair("ab>", "cd"))) == ("^ab>", "cd")


def test_a_tokenizers_first_token_stands_once_and_may_be_all_there_is_before() -> None:
    assert told(builder(adds=True).pair(Pair("ab", "cd"))) == ("^ab", "cd")
    assert told(builder(adds=True).pair(Pair("^ab", "cd"))) == ("^ab", "cd")
    assert told(builder(adds=True).pair(Pair(" ", "cd"))) == ("^", " cd")
    assert told(builder(first=None).pair(Pair("", "cd"))) == ("$", "cd")
    with pytest.raises(ValueError, match="neither a first nor a last token to put before"):
        builder(first=None, last=None).pair(Pair("", "cd"))


@pytest.mark.parametrize(
    ("context", "continuation", "why"),
    [
        ("", "?", r"continuation '\?' has no tokens"), ("", "^", "has no tokens of its own"),
        ("ab", "?", "has no tokens of its own"), ("?", "cd", r"context '\?' has no tokens"),
        ("ab", "c" * 11, "continuation of 11 tokens is longer than 10 positions"),
    ],
)  # fmt: skip
def test_what_has_nothing_to_score_or_to_score_behind_is_refused(context: str, continuation: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        builder().pair(Pair(context, continuation))


def request(truncate: Any = None, **values: Any) -> Request:
    return Request(index=0, id="0", truncate=truncate, **{"prompt": "", "task": "choice"} | values)


def test_a_long_context_is_cut_on_the_left_or_refused() -> None:
    pairs = (Pair("a" * 9, "b"), Pair("a" * 9 + "c", "bd"))
    assert [told(span) for span in builder().spans(request(pairs=pairs))] == [("a" * 9, "b"), ("a" * 8 + "c", "bd")]
    assert len(builder().spans(request("error", pairs=pairs[:1]))) == 1
    with pytest.raises(ValueError, match="prompt and option have 11 tokens, and the model 10 positions"):
        builder().spans(request("error", pairs=pairs))
    assert told(builder().spans(request("error", pairs=(Pair("a" * 9, "bc"),)))[0]) == ("a" * 9, "bc")
    with pytest.raises(ValueError, match="there are no options"):
        builder().spans(request())
    assert told(builder().pair(Pair("a" * 5, "c" * 10)))[1] == "c" * 10


def test_each_token_of_a_text_is_scored_once_with_as_much_before_as_fits() -> None:
    text = "abcdefghijklmnopqrstuvwxy"
    spans = builder().windows(text)
    assert [told(span) for span in spans] == [
        ("^", "abcdefghij"), ("j", "klmnopqrst"), ("opqrst", "uvwxy"),
    ]  # fmt: skip
    assert all(len(span.inputs) <= 10 for span in spans)
    assert [told(span) for span in builder().windows("abc")] == [("^", "abc")]
    with pytest.raises(ValueError, match="the text has no tokens"):
        builder().windows("?")
    assert builder().windows("?", nothing=True) == []
    assert builder().spans(request("left", task="perplexity", prompt="?")) == []
    with pytest.raises(ValueError, match="the perplexity of a chat is not defined"):
        builder().spans(request(task="perplexity", prompt=[{"role": "user", "content": "a"}]))


def test_a_job_is_over_with_its_last_token() -> None:
    from hpcjobs.engines.scoring.spans import ScoringJob, Span

    job = ScoringJob(request(), [Span((1, 2, 3), 2), Span((1, 4), 1)])
    for _ in range(2):
        job.start()
        assert (job.logprobs, job.greedy) == ([0.0, 0.0], [True, True])
        ends = [job.add(0, -1.0, True), job.add(1, -0.5, False), job.add(0, -2.0, True)]
        assert ends == [False, False, True]
        assert (job.logprobs, job.greedy) == ([-3.0, -0.5], [True, False])


@pytest.mark.parametrize("rows", [1, 127, 128, 129, 300])
def test_tokens_are_judged_by_log_softmax_whatever_the_block(rows: int) -> None:
    import torch

    from hpcjobs.engines.scoring.spans import judge_tokens

    torch.manual_seed(rows)
    logits = torch.randn(rows, 11) * 5
    logits[0, 3] = logits[0, 7] = logits[0].max() + 1
    places = [*range(rows), 0]
    tokens = [(3 * place) % 11 for place in range(rows)] + [7]
    tokens[0] = 3
    found = list(judge_tokens(logits.clone(), places, tokens))
    right = logits.double().log_softmax(-1)
    expected = [right[p, t].item() for p, t in zip(places, tokens, strict=True)]
    assert [one for one, _ in found] == pytest.approx(expected, abs=1e-5)
    assert [best for _, best in found] == [
        logits[p, t].item() == logits[p].max().item() for p, t in zip(places, tokens, strict=True)
    ]
    assert found[0][1]
    assert found[-1][1], "each of two that are equally likely"
    assert list(judge_tokens(logits, [], [])) == []
