"""The plain way: which sequences run together, and that no length changes what comes after it."""

from __future__ import annotations

from typing import Any

import pytest

from hpcjobs.requests import Request
from tests.reference.families import BORDER, family

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.model


def scorer(model: Any, most: int | None = None) -> Any:
    from hpcjobs.engines.scoring.sequences import PlainScorer

    made = PlainScorer(model)
    made._most = most or made._most
    return made


def job(index: int, *spans: tuple[int, int]) -> Any:
    """A job with spans of so many tokens, of which so many are scored; each with tokens of its own."""
    from hpcjobs.engines.scoring.spans import ScoringJob, Span

    made = [
        Span(tuple((4 + 3 * place + 7 * number + 11 * index) % 500 for place in range(length)), scored)
        for number, (length, scored) in enumerate(spans)
    ]
    return ScoringJob(Request(index=index, id=str(index), prompt=""), made)


def right(model: Any, one: Any) -> list[float]:
    """The log-likelihoods of a job's spans, each by one pass over the whole sequence."""
    from hpcjobs.engines.lengths import forget_lengths

    found = []
    for span in one.spans:
        forget_lengths(model)
        with torch.no_grad():
            table = model(torch.tensor([span.inputs])).logits[0].double().log_softmax(-1)
        found.append(sum(table[span.first + n, token].item() for n, token in enumerate(span.targets)))
    return found


@pytest.mark.parametrize(
    ("pads", "most", "sizes"),
    [
        (True, 12, [[6, 6], [5, 3], [2]]), (True, 100, [[6, 6, 5, 3, 2]]), (True, 5, [[6], [6], [5], [3], [2]]),
        (True, 6, [[6], [6], [5], [3, 2]]), (False, 12, [[6, 6], [5], [3], [2]]), (False, 5, [[6], [6], [5], [3], [2]]),
    ],
)  # fmt: skip
def test_as_many_sequences_run_together_as_a_pass_has_room_for(pads: bool, most: int, sizes: list[list[int]]) -> None:
    made = scorer(family("llama" if pads else "llama, dynamic rope"), most)
    sequences = [(0,) * length for length in (6, 6, 5, 3, 2)]
    assert [[len(one) for one in batch] for batch in made._batches(sequences)] == sizes
    assert list(made._batches([])) == []


@pytest.mark.parametrize("most", [None, 20, 6])
@pytest.mark.parametrize("name", ["llama", "llama, dynamic rope"])
def test_each_sequence_is_scored_as_if_it_were_alone(name: str, most: int | None) -> None:
    """In one pass, in several, and in parts of the logits; also after one that is longer than the model's border."""
    model = family(name)
    jobs = [
        job(0, (2 * BORDER, 40), (9, 2)),
        job(1, (BORDER, 30)),
        job(2, (2 * BORDER, 45), (9, 8), (9, 1)),
        job(3, (5, 4)),
    ]
    made = scorer(model, most)
    assert sorted(one.request.index for one in made.score(jobs)) == [0, 1, 2, 3]
    for one in jobs:
        assert one.logprobs == pytest.approx(right(model, one), abs=1e-3)
        assert one.left == 0


def test_two_jobs_score_their_own_parts_of_one_sequence() -> None:
    from hpcjobs.engines.scoring.spans import ScoringJob, Span

    model, ids = family("llama"), tuple(range(5, 25))
    for most in (None, 4):
        jobs = [
            ScoringJob(Request(index=n, id="", prompt=""), [Span(ids, scored)]) for n, scored in enumerate((19, 3, 8))
        ]
        rows = list[int]()
        hook = model.lm_head.register_forward_hook(
            lambda module, given, output, rows=rows: rows.append(output.shape[1])
        )
        made = scorer(model, most)
        assert made._parts.works
        rows.clear()
        assert [one.request.index for one in made.score(jobs)] == [0, 1, 2]
        hook.remove()
        assert max(rows) <= (most or 19), "no more logits at a time than a pass has room for"
        for one in jobs:
            assert one.logprobs == pytest.approx(right(model, one), abs=1e-3)


def test_parts_of_a_model_with_dynamic_rope_are_tried_once() -> None:
    from hpcjobs.engines.scoring.logit_parts import LogitParts

    model, calls = family("llama"), list[int]()
    hook = model.register_forward_hook(lambda module, given, output: calls.append(1))
    parts = LogitParts(model)
    assert (parts.works, parts.works) == (True, True)
    once = len(calls)
    assert LogitParts(model).works
    assert len(calls) == 2 * once
    hook.remove()
    body = LogitParts(model.base_model)
    assert (body.works, body._works) == (False, False)


@pytest.mark.parametrize(("leak", "works"), [(0.0, True), (0.02, False)])
def test_a_little_of_the_neighbours_in_a_head_is_seen(
    leak: float, works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpcjobs.engines.scoring.logit_parts import LogitParts

    model = family("llama")
    plain = model.lm_head.forward
    monkeypatch.setattr(model.lm_head, "forward", lambda x: plain(x + leak * x.mean(1, keepdim=True)))
    found = LogitParts(model).works
    assert found is works
    assert LogitParts(family("llama").to(torch.bfloat16)).works is True


def test_a_head_that_breaks_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from hpcjobs.engines.scoring.logit_parts import LogitParts

    model, calls = family("llama"), list[int]()

    def broken(x: Any) -> Any:
        calls.append(1)
        raise RuntimeError("no")

    monkeypatch.setattr(model.lm_head, "forward", broken)
    parts = LogitParts(model)
    assert (parts.works, parts.works, len(calls)) == (False, False, 1)
