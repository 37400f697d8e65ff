"""transformers' continuous batching on CPU: what brings it down, and what it hands to another engine."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from hpcjobs.engines.support import runs_packed
from hpcjobs.requests import Request
from tests.engines.test_generate import MIXED, by_index, engine_of, said

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.model


def test_a_request_that_brings_the_manager_down_fails_alone(tiny: Any, caplog: pytest.LogCaptureFixture) -> None:
    poison = tiny[1].convert_tokens_to_ids("Z")

    def spoil(module: Any, inputs: Any) -> None:
        if (inputs[0] == poison).any():
            raise RuntimeError("device-side assert")

    chats = [*MIXED[:6], [{"role": "user", "content": "Upper: Z"}], *MIXED[6:]]
    requests = [Request(index=n, id=str(n), prompt=chat, repeats=1 + n % 2) for n, chat in enumerate(chats)]
    good = [request for request in requests if request.index != 6]
    expected = [said(completion) for completion in by_index(engine_of("generate", tiny, 4), good)]
    hook = tiny[0].get_input_embeddings().register_forward_pre_hook(spoil)
    try:
        with caplog.at_level(logging.WARNING):
            found = by_index(engine_of("transformers", tiny, 4), requests)
    finally:
        hook.remove()
    assert found[6].error is not None
    assert found[6].error.message == "device-side assert"
    assert [said(completion) for completion in found if completion.index != 6] == expected
    assert "continuous batching broke down" in caplog.text


def test_a_manager_that_never_works_leaves_all_to_the_other_engine(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.generation.continuous_batching import ContinuousBatchingManager

    tried = 0

    def fail(self: Any) -> Any:
        nonlocal tried
        tried += 1
        raise MemoryError("no pages")

    monkeypatch.setattr(ContinuousBatchingManager, "_create_batch_processor", fail)
    prompts: list[Any] = [*MIXED[:6], "", *MIXED[6:]]  # it waits, already refused, when the other engine takes over
    requests = [Request(index=n, id=str(n), prompt=prompt) for n, prompt in enumerate(prompts)]
    found = by_index(engine_of("transformers", tiny, 2), requests)
    right = by_index(engine_of("loop", tiny, 2), requests)
    assert [said(each) for each in found] == [said(each) for each in right]
    assert found[6].error is not None
    assert tried == 3


def test_a_model_that_gets_no_manager_is_run_all_the_same(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny[0].config, "_attn_implementation_internal", "flex_attention")
    requests = [Request(index=n, id=str(n), prompt=chat) for n, chat in enumerate(MIXED[:4])]
    found = by_index(engine_of("transformers", tiny, 2), requests)
    monkeypatch.undo()
    assert [said(each) for each in found] == [said(each) for each in by_index(engine_of("loop", tiny, 2), requests)]


def test_what_is_to_be_sampled_goes_to_the_loop_and_it_says_so(tiny: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        by_index(engine_of("transformers", tiny, 4, temperature=0.7), [Request(index=0, id="0", prompt=MIXED[0])])
    assert "samples have seeds of their own" in caplog.text


def test_a_stream_that_is_left_ends_its_thread_and_leaves_the_model_as_it_was(tiny: Any) -> None:
    before, name = threading.active_count(), tiny[0].config._attn_implementation
    stream = engine_of("transformers", tiny, 2).stream(
        iter([Request(index=n, id=str(n), prompt=c) for n, c in enumerate(MIXED)])
    )
    next(stream)
    assert threading.active_count() > before
    stream.close()
    assert tiny[0].config._attn_implementation == name
    assert runs_packed(tiny[0])
    for thread in threading.enumerate():
        if thread.name.startswith("tokenizer"):
            thread.join(10)
    assert threading.active_count() <= before


def test_without_flash_attention_the_mask_has_no_more_places_than_kernels_can_count(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On an H100, in float32, a mask of 8,192 x 1,974,528, sized by free memory, gave 118 of 300 rows other texts."""
    monkeypatch.setattr(type(tiny[0]), "device", property(lambda _: torch.device("cuda")))
    for rows in (1, 256, 1_000_000):
        config = engine_of("transformers", tiny, rows)._batching()
        cached = (config.num_blocks + 2) * config.page_size
        assert config.max_batch_tokens * (cached + config.max_batch_tokens) <= 2**31
        assert cached >= min(rows, 256) * 256


def test_a_manager_whose_tokens_are_not_the_models_is_not_used(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A cache that mixes rows, as a kernel's wrong places do."""
    from transformers.generation.continuous_batching import PagedAttentionCache

    from hpcjobs.engines import continuous, continuous_trial

    monkeypatch.setattr(continuous_trial, "_TOKENS", 1500)
    update = PagedAttentionCache.update

    def mixed(self: Any, *args: Any, **kwargs: Any) -> Any:
        keys, values = update(self, *args, **kwargs)
        return keys, values.roll(1, dims=-2)

    engine = engine_of("transformers", tiny, 8)
    assert engine.trusted()
    continuous._tried.clear()
    with monkeypatch.context() as spoiled:
        spoiled.setattr(PagedAttentionCache, "update", mixed)
        assert not engine.trusted()
    continuous._tried.clear()
    assert "gave other tokens to a prompt" in caplog.text
