"""How much is computed and kept: only the logits that are asked for, and keys and values until nothing needs them."""

from __future__ import annotations

from typing import Any

import pytest

from hpcjobs.requests import Pair, Request

pytestmark = pytest.mark.model
LONG = "Words that nobody asks for: " * 6


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    from hpcjobs.engines.loader import load_model

    loaded: tuple[Any, Any] = load_model("tiny")
    return loaded


def question(*options: str) -> Request:
    pairs = tuple(Pair(LONG, option) for option in options)
    return Request(index=0, id="0", prompt=LONG, task="choice", options=options, pairs=pairs)


def scored(tiny: tuple[Any, Any], scorer: Any, *options: str) -> Any:
    from hpcjobs.engines.scoring.engine import ScoringEngine

    (done,) = ScoringEngine(*tiny, scorer=scorer).stream(iter([question(*options)]))
    assert done.error is None
    return done


@pytest.mark.parametrize("plain", [True, False])
def test_logits_are_computed_only_where_a_token_is_scored(tiny: tuple[Any, Any], plain: bool) -> None:
    from hpcjobs.engines.scoring.sequences import PlainScorer
    from hpcjobs.engines.scoring.tree import TreeScorer

    model, rows = tiny[0], list[int]()
    scorer = PlainScorer(model) if plain else TreeScorer(model)
    hook = model.register_forward_hook(lambda module, given, output: rows.append(output.logits.shape[1]))
    try:
        done = scored(tiny, scorer, " yes", " no")
    finally:
        hook.remove()
    assert sum(rows) <= done.completion_tokens
    assert done.prompt_tokens == len(tiny[1](LONG.rstrip()).input_ids)


def test_a_model_that_gives_all_logits_scores_the_same(tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from hpcjobs.engines.scoring.sequences import PlainScorer
    from hpcjobs.engines.scoring.tree import TreeScorer

    model = tiny[0]
    few = scored(tiny, PlainScorer(model), " yes", " no").likelihood
    forward = model.forward

    def all_of_them(input_ids: Any, attention_mask: Any = None, position_ids: Any = None,
                    past_key_values: Any = None, use_cache: bool = False) -> Any:  # fmt: skip
        return forward(
            input_ids, attention_mask=attention_mask, position_ids=position_ids, past_key_values=past_key_values,
            use_cache=use_cache,
        )  # fmt: skip

    monkeypatch.setattr(model, "forward", all_of_them)
    for scorer in (PlainScorer(model), TreeScorer(model)):
        assert scored(tiny, scorer, " yes", " no").likelihood.logprobs == pytest.approx(few.logprobs, abs=1e-4)


def test_parts_of_the_logits_are_those_of_the_whole(tiny: tuple[Any, Any]) -> None:
    import torch

    from hpcjobs.engines.scoring.logit_parts import LogitParts

    model, parts = tiny[0], LogitParts(tiny[0])
    assert parts.works
    ids = torch.arange(3, 33)[None]
    found = list(parts.of(ids, 7, 10))
    assert [len(part) for part in found] == [10, 10, 3]
    with torch.no_grad():
        assert torch.allclose(torch.cat(found), model(ids).logits[0, 7:], atol=1e-4)


def test_parts_are_not_used_where_they_are_other_logits(
    tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head that looks at its neighbours, one that gives another shape, and a body that is the whole model."""
    from hpcjobs.engines.scoring.logit_parts import LogitParts

    model = tiny[0]
    plain = model.lm_head.forward
    for wrong in (lambda x: x + x.mean(1, keepdim=True), lambda x: x[:, :1], lambda x: 1 / 0):
        with monkeypatch.context() as patch:
            patch.setattr(model.lm_head, "forward", lambda x, wrong=wrong: plain(wrong(x)))
            assert not LogitParts(model).works
    assert not LogitParts(model.base_model).works


def test_keys_and_values_are_dropped_when_all_below_is_computed() -> None:
    from hpcjobs.engines.prefix import Node
    from hpcjobs.engines.scoring.passes import release

    root = Node(start=0, tokens=())
    stem = root.child((1, 2))
    leaves = [stem.child((3,)), stem.child((4,))]
    root.open, stem.open = 1, 2
    for node in (stem, *leaves):
        node.kv = []
    release(stem)
    release(leaves[0])
    assert (leaves[0].kv, stem.kv, stem.open) == (None, [], 1)
    release(leaves[1])
    assert (leaves[1].kv, stem.kv, root.open) == (None, None, 0)


def test_a_window_of_questions_leaves_only_the_heads_that_they_share(
    tiny: tuple[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    from hpcjobs.engines.scoring.engine import ScoringEngine
    from hpcjobs.engines.scoring.tree import TreeScorer

    scorer = TreeScorer(tiny[0])
    requests = [
        Request(index=n, id=str(n), prompt=LONG, task="choice", options=(f" {n}",), pairs=(Pair(LONG + str(n), " x"),))
        for n in range(3)
    ]
    for _ in range(2):  # the second time behind the head that is kept
        done = list(ScoringEngine(*tiny, scorer=scorer).stream(iter(requests)))
        assert [one.error for one in done] == [None] * 3
        (kept,) = scorer._prefixes.sequences
        assert len(kept) <= len(tiny[1](LONG + "0").input_ids)
    assert "failed" not in caplog.text
    scorer.forget()
    assert len(scorer._prefixes) == 0


def test_the_least_recently_used_prefixes_go_first() -> None:
    import torch

    from hpcjobs.engines.prefix import Node
    from hpcjobs.engines.scoring.passes import PrefixCache

    def leaf(*tokens: int) -> Node:
        node = Node(start=0, tokens=()).child(tokens)
        node.kv = [(torch.zeros(1, 1, len(tokens), 2), torch.ones(1, 1, len(tokens), 2))]
        return node

    cache = PrefixCache(5)
    for tokens in ((1, 2), (3, 4), (1, 2), (5,)):
        cache.add(leaf(*tokens))
    assert (cache.sequences, len(cache)) == ([(3, 4), (1, 2), (5,)], 5)
    cache.add(leaf(6))
    assert (cache.sequences, len(cache)) == ([(1, 2), (5,), (6,)], 4)
    again = Node(start=0, tokens=()).child((1,)).child((2,))
    cache.recall((1, 2), again)
    assert again.kv is not None
    assert [tuple(one.shape) for one in again.kv[0]] == [(1, 1, 1, 2)] * 2


@pytest.mark.parametrize("size", [16, 17])
def test_a_pass_gets_smaller_down_to_a_least_size(tiny: tuple[Any, Any], size: int) -> None:
    from hpcjobs.engines.scoring.sequences import PlainScorer
    from hpcjobs.engines.scoring.tree import TreeScorer

    for scorer in (PlainScorer(tiny[0]), TreeScorer(tiny[0])):
        scorer._most = 2 * size
        assert scorer.smaller()
        assert scorer._most == size
        assert not scorer.smaller()


def test_only_models_that_may_share_a_cache_are_tried(
    tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial costs a pass over more than the longest window, and its failure a warning."""
    from hpcjobs.engines.scoring import engine
    from hpcjobs.engines.scoring.sequences import PlainScorer

    tried = list[object]()

    def agree(*scorers: object) -> bool:
        tried.append(scorers)
        return True

    monkeypatch.setattr(engine, "agree", agree)
    assert not isinstance(engine.scorer_of(tiny[0]), PlainScorer)
    assert len(tried) == 1
    for name, value in (("has_plain_cache", False), ("has_fixed_positions", False), ("takes_positions", False),
                        ("longest_window", engine._MOST_TRIED + 1)):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(engine, name, lambda model, value=value: value)
            assert isinstance(engine.scorer_of(tiny[0]), PlainScorer)
    assert len(tried) == 1
    monkeypatch.setattr(engine, "longest_window", lambda model: engine._MOST_TRIED)
    assert not isinstance(engine.scorer_of(tiny[0]), PlainScorer)


def test_parts_are_for_what_is_more_than_a_pass_and_not_for_its_context(tiny: tuple[Any, Any]) -> None:
    from hpcjobs.engines.scoring.sequences import PlainScorer

    scorer, used = PlainScorer(tiny[0]), list[int]()
    of = scorer._parts.of

    def counted(ids: Any, first: int, most: int) -> Any:
        used.append(ids.shape[1] - first)
        return of(ids, first, most)

    assert scorer._parts.works
    scorer._parts.of = counted  # type: ignore[method-assign]
    right = scored(tiny, scorer, " yes").likelihood
    scorer._most = right.tokens[0]
    assert scored(tiny, scorer, " yes").likelihood == right
    assert used == [], "one option's logits are as many as a pass has"
    scorer._most = 1
    assert scored(tiny, scorer, " yes").likelihood.logprobs == pytest.approx(right.logprobs, abs=1e-3)
    assert used == [right.tokens[0]]


def test_a_sequence_of_more_logits_than_a_pass_is_scored_in_parts(tiny: tuple[Any, Any]) -> None:
    """Also where several requests score more or less of it."""
    from hpcjobs.engines.scoring.engine import ScoringEngine
    from hpcjobs.engines.scoring.sequences import PlainScorer

    words = LONG.split(" ")
    pairs = [(" ".join(words[:cut]), " " + " ".join(words[cut:])) for cut in (3, 20, 9)]
    requests = [
        Request(index=n, id=str(n), prompt=head, task="choice", options=(rest,), pairs=(Pair(head, rest),))
        for n, (head, rest) in enumerate(pairs)
    ]
    parts, whole = PlainScorer(tiny[0]), PlainScorer(tiny[0])
    parts._most = 8
    found, right = (
        {done.index: done.likelihood for done in ScoringEngine(*tiny, scorer=scorer).stream(iter(requests))}
        for scorer in (parts, whole)
    )
    assert sorted(found) == [0, 1, 2]
    for index, one in right.items():
        other = found[index]
        assert one is not None
        assert other is not None
        assert other.logprobs == pytest.approx(one.logprobs, abs=1e-3)
        assert (other.tokens, other.greedy) == (one.tokens, one.greedy)
