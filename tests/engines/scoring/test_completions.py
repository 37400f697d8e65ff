"""What becomes of requests around the scorer: windows of them, failures, and the completion of each."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from hpcjobs.requests import Pair, Request
from tests.reference.families import family

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    from hpcjobs.engines.loader import load_model

    loaded: tuple[Any, Any] = load_model("tiny")
    return loaded


class Ones:
    """A scorer to which each token is e ** -1 likely. It ends some jobs, then raises for what it refuses."""

    def __init__(self, refuses: Any = lambda jobs: None, halves: int = 0) -> None:
        self._refuses, self.halves = refuses, halves
        self.asked, self.forgotten = list[list[int]](), 0

    def score(self, jobs: Sequence[Any]) -> Iterator[Any]:
        self.asked.append([job.request.index for job in jobs])
        for job in jobs:
            job.start()
        for job in jobs:
            if error := self._refuses([one for one in jobs if one.left]):
                raise error
            ended = [job.add(n, -1.0, True) for n, span in enumerate(job.spans) for _ in range(span.scored)]
            assert ended[-1]
            yield job

    def smaller(self) -> bool:
        self.halves -= 1
        return self.halves >= 0

    def forget(self) -> None:
        self.forgotten += 1


def questions(count: int) -> list[Request]:
    return [
        Request(index=n, id=str(n), prompt="a", task="choice", options=("b",), pairs=(Pair("a", "b"),))
        for n in range(count)
    ]


def engine(tiny: tuple[Any, Any], scorer: Any, batch: int = 2, fresh: bool = False) -> Any:
    from hpcjobs.engines.scoring.engine import ScoringEngine

    return ScoringEngine(*tiny, batch_size=batch, fresh=fresh, scorer=scorer)


def test_four_batches_are_taken_at_a_time(tiny: tuple[Any, Any]) -> None:
    scorer = Ones()
    made = engine(tiny, scorer, batch=3)
    assert made.batch_size == 3
    assert [one.index for one in made.stream(iter(questions(30)))] == list(range(30))
    assert scorer.asked == [list(range(12)), list(range(12, 24)), list(range(24, 30))]


@pytest.mark.parametrize(("fresh", "count", "forgotten"), [(True, 8, 1), (True, 16, 1), (True, 9, 1), (False, 9, 0)])
def test_after_a_pause_all_is_forgotten_where_results_must_be_the_same(
    tiny: tuple[Any, Any], fresh: bool, count: int, forgotten: int
) -> None:
    """A window that is full is no pause; the end of the source is one."""
    scorer = Ones()
    assert len(list(engine(tiny, scorer, fresh=fresh).stream(iter(questions(count))))) == count
    assert scorer.forgotten == forgotten


def test_what_is_done_before_a_failure_is_not_done_again(tiny: tuple[Any, Any]) -> None:
    def refuses(left: Sequence[Any]) -> Exception | None:
        return RuntimeError("no") if left[0].request.index == 5 else None

    scorer, begin = Ones(refuses), time.time()
    done = list(engine(tiny, scorer, batch=3).stream(iter(questions(9))))
    assert [one.index for one in done] == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert scorer.asked == [list(range(9)), [5, 6], [5], [6], [7, 8]]
    assert scorer.forgotten == 3, "once a failure"
    assert [one.error and (one.error.type, one.error.message) for one in done] == [
        ("RuntimeError", "no") if one.index == 5 else None for one in done
    ]
    for one in done:
        assert begin <= one.started_at <= time.time()
        assert 0 <= one.seconds < 60


def test_out_of_memory_is_tried_with_smaller_passes_and_then_with_fewer_requests(
    tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    freed = list[int]()
    monkeypatch.setattr("hpcjobs.engines.scoring.engine.free_gpu_memory", lambda: freed.append(1))
    scorer = Ones(lambda left: torch.OutOfMemoryError("no room") if len(left) > 2 else None, halves=1)
    done = list(engine(tiny, scorer).stream(iter(questions(5))))
    assert [(one.index, one.error) for one in done] == [(n, None) for n in range(5)]
    assert scorer.asked == [list(range(5)), list(range(5)), [0, 1], [2, 3, 4], [2], [3, 4]]
    assert len(freed) == 3


def test_groups_have_the_most_tokens_or_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    from hpcjobs.engines.scoring import engine as module
    from hpcjobs.engines.scoring.spans import ScoringJob, Span

    monkeypatch.setattr(module, "_WINDOW_TOKENS", 10)

    def groups(*sizes: tuple[int, ...]) -> list[list[int]]:
        jobs = [
            ScoringJob(Request(index=n, id="", prompt=""), [Span((0,) * (one + 1), one) for one in each])
            for n, each in enumerate(sizes)
        ]
        return [[job.request.index for job in group] for group in module._groups(jobs)]

    assert groups((4, 2), (4,), (1,)) == [[0, 1], [2]]
    assert groups((5,), (5, 1), (4,), (9,), (30,), (1,), (9,), (1,)) == [[0], [1, 2], [3], [4], [5, 6], [7]]
    assert groups((11,)) == [[0]]
    assert groups() == []


def job(request: Request, logprobs: list[float], greedy: list[bool], sizes: Sequence[tuple[int, int]]) -> Any:
    from hpcjobs.engines.scoring.spans import ScoringJob, Span

    return ScoringJob(request, [Span((0,) * length, scored) for length, scored in sizes], logprobs, greedy)


def test_a_text_is_the_sum_of_its_windows() -> None:
    from hpcjobs.engines.scoring.engine import _completion

    text, begin = Request(index=3, id="", prompt="x", task="perplexity"), time.time() - 5
    done = _completion(job(text, [-1.5, -2.0], [True, False], [(5, 4), (9, 3)]), begin)
    found = done.likelihood
    assert found is not None
    assert (found.logprobs, found.greedy, found.tokens, found.options) == ((-3.5,), (False,), (7,), ())
    assert (done.index, done.text, done.prompt_tokens, done.completion_tokens, done.error) == (3, "", 0, 7, None)
    assert (done.finish_reason, done.started_at) == ("scored", begin)
    assert 5 <= done.seconds < 60
    nothing = _completion(job(text, [], [], []), begin)
    assert nothing.likelihood is not None
    assert (nothing.likelihood.logprobs, nothing.likelihood.tokens, nothing.error) == ((0.0,), (0,), None)


def test_options_have_their_own_numbers_and_the_likeliest_is_the_answer() -> None:
    from hpcjobs.engines.scoring.engine import _completion

    pairs, begin = (Pair("", "first"), Pair("", "second")), time.time() - 5
    for options, text in ((("A", "B"), "B"), ((), "second")):
        request = Request(index=7, id="", prompt="x", task="choice", options=options, pairs=pairs)
        done = _completion(job(request, [-3.0, -2.0], [False, True], [(9, 2), (5, 3)]), begin)
        found = done.likelihood
        assert found is not None
        assert (found.logprobs, found.greedy, found.tokens, found.options) == (
            (-3.0, -2.0), (False, True), (2, 3), options,
        )  # fmt: skip
        assert (done.index, done.text, done.finish_reason) == (7, text, "scored")
        assert (done.prompt_tokens, done.completion_tokens) == (7, 5), "the prompt is that of the first option"
        assert 5 <= done.seconds < 60


def test_a_number_that_is_none_fails_the_request() -> None:
    from hpcjobs.engines.scoring.engine import _completion

    for task in ("perplexity", "choice"):
        request: Any = Request(index=1, id="", prompt="x", task=task)
        done = _completion(job(request, [-1.0, math.nan], [True, True], [(3, 1), (3, 1)]), time.time() - 5)
        assert done.error is not None
        assert (done.index, done.error.type, done.finish_reason) == (1, "ValueError", "error")
        assert done.error.message == "log-likelihoods are not finite: [-1.0, nan]"
        assert 5 <= done.seconds < 60


def test_a_text_without_tokens_is_a_completion_of_its_own(tiny: tuple[Any, Any]) -> None:
    empty = Request(index=1, id="1", prompt="", task="perplexity", truncate="left")
    done = {one.index: one for one in engine(tiny, Ones()).stream(iter([*questions(1), empty]))}
    assert done[1].likelihood is not None
    assert (done[1].likelihood.logprobs, done[1].error) == ((0.0,), None)
    assert 0 <= done[1].seconds < 60


@pytest.mark.parametrize(("leak", "agrees"), [(0.0, True), (0.02, False)])
def test_a_little_of_other_branches_is_seen_in_the_trial(
    monkeypatch: pytest.MonkeyPatch, leak: float, agrees: bool
) -> None:
    """Far less than bfloat16 rounds is far more than float32 does."""
    from hpcjobs.engines.scoring import passes
    from hpcjobs.engines.scoring.engine import scorer_of
    from hpcjobs.engines.scoring.tree import TreeScorer

    model, mask = family("llama"), passes._mask
    monkeypatch.setattr(
        passes, "_mask", lambda *given: mask(*given).clamp(min=math.log(leak)) if leak else mask(*given)
    )
    assert isinstance(scorer_of(model), TreeScorer) is agrees


def test_a_model_of_few_words_is_tried_with_those() -> None:
    import transformers

    from hpcjobs.engines.scoring.engine import scorer_of
    from hpcjobs.engines.scoring.tree import TreeScorer

    torch.manual_seed(0)
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=40, n_positions=256)
    assert isinstance(scorer_of(transformers.GPT2LMHeadModel(config).eval()), TreeScorer)


def nested() -> list[Any]:
    """Three questions behind a head, two of them behind a longer one, and one of its own."""
    from hpcjobs.engines.scoring.spans import ScoringJob, Span

    head, longer = tuple(range(4, 16)), tuple(range(30, 40))
    ends = [(*head, *longer, 50, 51, 52), (*head, *longer, 60, 61), (*head, 70, 71, 72), tuple(range(100, 112))]
    return [ScoringJob(Request(index=n, id="", prompt=""), [Span(end, 2)]) for n, end in enumerate(ends)]


def test_the_longest_heads_that_are_shared_are_kept_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    from hpcjobs.engines.prefix import PrefixTree
    from hpcjobs.engines.scoring import tree

    grown = list[PrefixTree]()

    def grow(*given: Any) -> PrefixTree:
        grown.append(PrefixTree(*given))
        return grown[-1]

    monkeypatch.setattr(tree, "PrefixTree", grow)
    model = family("llama")
    scorer, computed = tree.TreeScorer(model), list[int]()
    hook = model.register_forward_hook(
        lambda module, given, named, output: computed.append(named["input_ids"].shape[1]), with_kwargs=True
    )
    heads = [(*range(4, 16), *range(30, 40))]
    first, again, alone = nested(), nested(), nested()[3:]
    assert sorted(job.request.index for job in scorer.score(first)) == [0, 1, 2, 3]
    assert scorer._prefixes.sequences == heads
    left = [node.tokens for node in grown[0].nodes() if node.kv is not None]
    assert left == [tuple(range(4, 16)), tuple(range(30, 40))], "the keys and values of all others are dropped"
    once = sum(computed)
    assert once == 12 + 10 + 2 + 1 + 2 + 11, "each head once, and of each question all tokens but the last"
    assert sorted(job.request.index for job in scorer.score(again)) == [0, 1, 2, 3]
    assert sum(computed) - once == 2 + 1 + 2 + 11 + 10, "of what is kept only what a token is scored behind"
    hook.remove()
    for one, other in zip(first, again, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    assert [job.request.index for job in scorer.score(alone)] == [3]
    scorer.forget()
    assert scorer._prefixes.sequences == []


class Told:
    """A scorer that says what it is told of three spans, and keeps what it was asked."""

    def __init__(self, *logprobs: float) -> None:
        self._logprobs, self.spans = list(logprobs), list[Any]()

    def score(self, jobs: Sequence[Any]) -> Iterator[Any]:
        for job in jobs:
            self.spans += job.spans
            job.logprobs = self._logprobs
            yield job

    def smaller(self) -> bool:
        return False

    def forget(self) -> None:
        """Keep all."""


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 0.008), (torch.bfloat16, 2.4)])
def test_each_branch_of_the_trial_must_come_out_the_same(dtype: Any, most: float) -> None:
    """Eight tokens, each a thousandth of a nat off at most; with rounding to 8 bits, three tenths."""
    from hpcjobs.engines.scoring.engine import agree

    model = family("llama").to(dtype)
    for off, same in ((0.0, True), (most, True), (-most, True), (1.01 * most, False), (-1.01 * most, False)):
        for branch in range(3):
            sums = [0.0, 0.0, 0.0]
            sums[branch] += off
            assert agree(Told(*sums), Told(0.0, 0.0, 0.0), model) is same


@pytest.mark.parametrize(("name", "window"), [("llama", 0), ("gemma3", 8)])
def test_the_branches_of_the_trial_part_behind_more_than_a_window(name: str, window: int) -> None:
    from hpcjobs.engines.scoring.engine import agree

    scorer = Told(0.0, 0.0, 0.0)
    agree(scorer, Told(0.0, 0.0, 0.0), family(name))
    ids, length = [span.ids for span in scorer.spans], 12 + window
    assert [(len(one), span.scored) for one, span in zip(ids, scorer.spans, strict=True)] == [
        (length + 100, 8), (length + 8, 8), (length + 8, 8),
    ]  # fmt: skip
    assert len({one[:length] for one in ids}) == 1
    assert len({*ids[0][:length]}) == length
    assert ids == sorted(ids)
    for one in ids:
        assert len({*one[length : length + 8]}) == 8
        assert 0 <= min(one) <= max(one) < 64
