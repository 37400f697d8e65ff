"""The loop: rows leave and come at once, what prompts share is computed once, and memory that runs out is no end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hpcjobs.config import GenerationConfig
from hpcjobs.requests import Completion, Request
from tests.engines.test_generate import MIXED, QUESTIONS, Failing, by_index, engine_of, said

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.model


def _nothing(ids: Any) -> None:
    """A model that never breaks, and remembers the sizes of its passes."""


def _watched(tiny: Any) -> tuple[Failing, Any]:
    return Failing(tiny[0], _nothing), tiny[1]


def _plain(tiny: Any, requests: list[Request]) -> list[Any]:
    return [said(completion) for completion in by_index(engine_of("generate", tiny, 4), requests)]


def _ids(tiny: Any, chat: Any) -> list[int]:
    from hpcjobs.engines.encoding import prompt_ids

    return prompt_ids(tiny[1], chat)


def test_a_row_that_ends_makes_room_at_once(tiny: Any) -> None:
    """One long answer beside many short ones: a pass a token of the long one, whatever the number of the others."""
    chat, pair = MIXED[0], _watched(tiny)
    limits = [20] + [2] * 6
    requests = [
        Request(index=n, id=str(n), prompt=chat, generation=GenerationConfig(max_new_tokens=most))
        for n, most in enumerate(limits)
    ]
    found = by_index(engine_of("loop", pair, 2), requests)
    assert [completion.completion_tokens for completion in found][1:] == [2] * 6
    assert len(pair[0].sizes) == found[0].completion_tokens


def test_what_prompts_share_is_computed_once(tiny: Any) -> None:
    """Of a prompt that was computed, or is in the same pass, only the last token is; of others what is their own."""
    one, other = MIXED[0], MIXED[1]
    first, second = _ids(tiny, one), _ids(tiny, other)
    shared = next(n for n in range(len(first)) if first[n] != second[n])
    pair = _watched(tiny)
    requests = [
        Request(index=0, id="0", prompt=one, repeats=3),
        Request(index=1, id="1", prompt=other),
        Request(index=2, id="2", prompt=one),
    ]
    found = by_index(engine_of("loop", pair, 8, max_new_tokens=2), requests)
    assert pair[0].sizes[0] == (1, len(first) + 3 + max(len(second) - shared, 1))
    assert [said(completion) for completion in found] == [
        said(completion) for completion in by_index(engine_of("generate", tiny, 8, max_new_tokens=2), requests)
    ]


def test_a_head_stays_known_while_rows_come_and_go(tiny: Any) -> None:
    head, pair = "x" * 100, _watched(tiny)
    chats = [[{"role": "user", "content": f"{head} Upper: {word}"}] for word in ("wecu", "ucigo", "ta", "uvol", "axun")]
    requests = [Request(index=n, id=str(n), prompt=chat) for n, chat in enumerate(chats)]
    found = by_index(engine_of("loop", pair, 2, max_new_tokens=4), requests)
    assert [tokens for _, tokens in pair[0].sizes if tokens > 100] == [pair[0].sizes[0][1]]  # the head, once
    expected = by_index(engine_of("generate", tiny, 2, max_new_tokens=4), requests)
    assert [said(completion) for completion in found] == [said(completion) for completion in expected]


def test_what_comes_after_the_last_row_does_not_depend_on_what_was_before(tiny: Any) -> None:
    """A deterministic run drains the batch at a chunk's border, and another rank may have run the chunk before."""
    back: list[int] = []
    pair = _watched(tiny)

    def source() -> Iterator[Request | None]:
        for chunk in range(2):
            yield Request(index=chunk, id=str(chunk), prompt=MIXED[0])
            while len(back) <= chunk:
                yield None

    for completion in engine_of("loop", pair, 4, max_new_tokens=3).stream(source()):
        back.append(completion.index)
    assert pair[0].sizes[:3] == pair[0].sizes[3:]


def test_a_paused_source_is_not_asked_at_every_token(tiny: Any) -> None:
    asked = 0
    back: list[Completion] = []

    def source() -> Iterator[Request | None]:
        nonlocal asked
        yield from (Request(index=n, id=str(n), prompt=chat) for n, chat in enumerate(MIXED))
        while len(back) < len(MIXED):
            asked += 1
            yield None

    pair = _watched(tiny)
    for completion in engine_of("loop", pair, 64).stream(source()):
        back.append(completion)
    assert len(back) == len(MIXED)
    assert asked < 12 < len(pair[0].sizes)


def test_out_of_memory_halves_the_batch_and_nothing_that_was_made_is_lost(tiny: Any) -> None:
    passes = 0

    def breaks(ids: Any) -> None:
        nonlocal passes
        passes += 1
        if ids.shape[1] > 40 or passes == 9:  # too many prompts, and once in the middle of answers
            raise torch.OutOfMemoryError("CUDA out of memory")

    requests = [Request(index=n, id=str(n), prompt=chat, seed=5 + n) for n, chat in enumerate(MIXED)]
    for how in ({}, {"temperature": 1.5}):
        passes = 0
        engine = engine_of("loop", (Failing(tiny[0], breaks), tiny[1]), 8, **how)
        found = by_index(engine, requests)
        expected = by_index(engine_of("generate", tiny, 4, **how), requests)
        assert [said(completion) for completion in found] == [said(completion) for completion in expected]
        assert 1 <= engine.batch_size <= 2


def test_a_row_for_which_memory_never_suffices_fails_alone(tiny: Any) -> None:
    def breaks(ids: Any) -> None:
        if ids.shape[1] > 60:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")

    long = [{"role": "user", "content": "Upper: " + "x" * 100}]
    requests = [Request(index=n, id=str(n), prompt=chat) for n, chat in enumerate([*QUESTIONS, long])]
    found = by_index(engine_of("loop", (Failing(tiny[0], breaks), tiny[1]), 8), requests)
    assert [completion.error is None for completion in found] == [True] * 7 + [False]
    assert [said(completion) for completion in found[:7]] == _plain(tiny, requests[:7])


def test_prompts_longer_than_a_piece_and_a_pass(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from hpcjobs.engines.loop import engine as loop

    monkeypatch.setattr(loop, "_PASS_TOKENS", {"cpu": 24})
    monkeypatch.setattr(loop, "_PIECE_TOKENS", 7)
    requests = [Request(index=n, id=str(n), prompt=chat, repeats=1 + n % 2) for n, chat in enumerate(MIXED)]
    pair = _watched(tiny)
    assert [said(completion) for completion in by_index(engine_of("loop", pair, 6), requests)] == _plain(tiny, requests)
    assert max(tokens for _, tokens in pair[0].sizes) <= 24 + 6 + 6


def test_the_models_own_generation_config_is_kept_to(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [Request(index=n, id=str(n), prompt=chat) for n, chat in enumerate(MIXED)]
    before = _plain(tiny, requests)
    monkeypatch.setattr(tiny[0].generation_config, "repetition_penalty", 3.0)
    monkeypatch.setattr(tiny[0].generation_config, "min_new_tokens", 4)
    expected = _plain(tiny, requests)
    assert expected != before
    assert [said(completion) for completion in by_index(engine_of("loop", tiny, 3), requests)] == expected


def test_bfloat16_answers(tiny: Any) -> None:
    from hpcjobs.engines.loader import load_model

    pair = load_model("tiny", dtype=torch.bfloat16)
    requests = [Request(index=n, id=str(n), prompt=chat) for n, chat in enumerate(QUESTIONS)]
    half = [completion.text for completion in by_index(engine_of("loop", pair, 4), requests)]
    assert half == [completion.text for completion in by_index(engine_of("loop", tiny, 4), requests)]


def test_a_stream_that_is_left_leaves_the_model_as_it_was(tiny: Any) -> None:
    name = tiny[0].config._attn_implementation
    stream = engine_of("loop", tiny, 2).stream(
        iter([Request(index=n, id=str(n), prompt=chat) for n, chat in enumerate(MIXED)])
    )
    next(stream)
    assert tiny[0].config._attn_implementation == name
    stream.close()
    assert _plain(tiny, [Request(index=0, id="0", prompt=MIXED[0])])[0][1] == "wecu wecu wecu"
