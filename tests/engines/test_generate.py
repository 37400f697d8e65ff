"""Engines: the same answers in any batch, and nothing that a prompt does ends the rank."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from hpcjobs.config import GenerationConfig
from hpcjobs.engines.base import take
from hpcjobs.engines.dummy import DummyEngine
from hpcjobs.requests import Completion, Request
from hpcjobs.worker.signals import Terminated

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.model


def _requests(prompts: list[Any]) -> list[Request]:
    return [Request(index=n, id=str(n), prompt=prompt, seed=100 + n) for n, prompt in enumerate(prompts)]


def _chat(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


QUESTIONS = [
    _chat(f"Repeat {n % 5 + 1}: {word}") for n, word in enumerate(["wecu", "ucigo", "ta", "uvol", "axun", "qiva", "lo"])
]


KINDS = ("generate", "loop", "transformers")
every_engine = pytest.mark.parametrize("kind", KINDS)


def engine_of(kind: str, pair: Any, batch_size: int, **generation: Any) -> Any:
    """An engine of this kind over (model, tokenizer)."""
    from hpcjobs.engines.continuous import ContinuousEngine
    from hpcjobs.engines.generate import GenerateEngine
    from hpcjobs.engines.loop.engine import LoopEngine

    kinds: dict[str, Any] = {"generate": GenerateEngine, "loop": LoopEngine, "transformers": ContinuousEngine}
    return kinds[kind](*pair, GenerationConfig(**({"max_new_tokens": 32} | generation)), batch_size)


def by_index(engine: Any, requests: list[Request]) -> list[Completion]:
    return sorted(engine.stream(iter(requests)), key=lambda completion: completion.index)


def _run(tiny: Any, prompts: list[Any], batch_size: int = 4, kind: str = "generate", **how: Any) -> list[Completion]:
    return by_index(engine_of(kind, tiny, batch_size, **how), _requests(prompts))


def said(completion: Completion) -> tuple[Any, ...]:
    """All of a completion but its times."""
    error = completion.error.type if completion.error else None
    counts = completion.prompt_tokens, completion.completion_tokens
    return completion.index, completion.text, completion.texts, completion.finish_reason, counts, error


@every_engine
def test_greedy_answers_are_those_of_plain_generate_in_any_batch(tiny: Any, kind: str) -> None:
    model, tokenizer = tiny
    plain = []
    for chat in QUESTIONS:
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.inference_mode():
            out = model.generate(**ids, max_new_tokens=32, do_sample=False)
        plain.append(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))
    assert plain[1] == "ucigo ucigo"
    for batch_size in (1, 2, 3, 16):
        assert [c.text for c in _run(tiny, QUESTIONS, batch_size, kind)] == plain


MIXED = [
    _chat(f"{what} {word}")
    for what in ("Repeat 3:", "Spell:", "Upper:", "Reverse:")
    for word in ("wecu", "ucigo", "ta", "uvolaxun", "qiva")
]


@pytest.mark.parametrize("how", [{}, {"max_new_tokens": 5}, {"stop": ("-c", "U", " u")}], ids=str)
@pytest.mark.parametrize("kind", ["loop", "transformers"])
def test_engines_say_the_same_in_any_order_and_batch(tiny: Any, kind: str, how: dict[str, Any]) -> None:
    own = GenerationConfig(max_new_tokens=3, stop=("o",))
    prompts: list[Any] = [*MIXED, "", _chat("x" * 400), _chat("Upper: " + "x" * 240)]
    requests = [
        Request(
            index=n, id=str(n), prompt=prompt, seed=7 * n, repeats=1 + n % 3, generation=own if n % 4 == 3 else None
        )
        for n, prompt in enumerate(prompts)
    ]
    expected = [said(completion) for completion in by_index(engine_of("generate", tiny, 4, **how), requests)]
    assert {reason for _, _, _, reason, _, _ in expected} == {"stop", "length", "error"}
    orders = [requests, requests[::-1], random.Random(3).sample(requests, len(requests))]
    for batch_size, order in zip((1, 3, 16), orders, strict=True):
        assert [
            said(completion) for completion in by_index(engine_of(kind, tiny, batch_size, **how), order)
        ] == expected


@every_engine
def test_counts_and_finish_reasons(tiny: Any, kind: str) -> None:
    chat = [_chat("Upper: wasukoti")]
    done, cut = _run(tiny, chat, kind=kind)[0], _run(tiny, chat, kind=kind, max_new_tokens=3)[0]
    assert (done.text, done.finish_reason, done.completion_tokens) == ("WASUKOTI", "stop", 9)
    assert (cut.text, cut.finish_reason, cut.completion_tokens) == ("WAS", "length", 3)
    assert done.prompt_tokens == cut.prompt_tokens == len("Upper: wasukoti") + 4  # bos, user, end, assistant


def test_new_tokens_are_limited_to_the_room_that_the_prompt_leaves(tiny: Any) -> None:
    long = _chat("Upper: " + "x" * 240)  # 251 of 256 positions
    found = _run(tiny, [long, *QUESTIONS], batch_size=8)
    assert (found[0].finish_reason, found[0].completion_tokens) == ("length", 5)
    assert [c.text for c in found[1:]] == [c.text for c in _run(tiny, QUESTIONS)]


def test_stop_strings_cut_each_row_for_itself(tiny: Any) -> None:
    chats = [_chat("Spell: wecu"), _chat("Upper: wasukoti"), _chat("Repeat 3: ucigo")]
    texts = [c.text for c in _run(tiny, chats, stop=("-c", "SUK", " u"))]
    assert texts == ["w-e", "WA", "ucigo"]
    assert {c.finish_reason for c in _run(tiny, chats, stop=("-c", "SUK", " u"))} == {"stop"}


@every_engine
def test_sampling_depends_on_the_sample_alone(tiny: Any, kind: str) -> None:
    hot = {"temperature": 1.5, "top_p": 0.95}
    alone = [c.text for c in _run(tiny, QUESTIONS, 1, "generate", **hot)]
    assert alone == [c.text for c in _run(tiny, QUESTIONS, 7, kind, **hot)]
    assert alone != [c.text for c in _run(tiny, QUESTIONS, 7, kind)]


@every_engine
def test_each_of_several_answers_has_a_seed_of_its_own(tiny: Any, kind: str) -> None:
    hot, chat = {"temperature": 3.0, "max_new_tokens": 12}, _chat("Repeat 2: ucigo")
    several = by_index(engine_of(kind, tiny, 4, **hot), [Request(index=0, id="0", prompt=chat, seed=40, repeats=5)])[0]
    alone = [Request(index=n, id=str(n), prompt=chat, seed=40 + n) for n in range(5)]
    single = by_index(engine_of("generate", tiny, 4, **hot), alone)
    assert several.texts == tuple(completion.text for completion in single)
    assert several.text == several.texts[0]
    assert len(set(several.texts)) > 1
    assert several.completion_tokens == sum(completion.completion_tokens for completion in single)
    assert several.prompt_tokens == single[0].prompt_tokens
    assert by_index(engine_of(kind, tiny, 4, **hot), alone[:1])[0].texts == ()


@every_engine
def test_requests_of_one_batch_have_settings_of_their_own(tiny: Any, kind: str) -> None:
    own = [
        GenerationConfig(max_new_tokens=2), GenerationConfig(stop=("SUK",)), None,
        GenerationConfig(temperature=1.5, max_new_tokens=9),
    ]  # fmt: skip
    chat = _chat("Upper: wasukoti")
    requests = [
        Request(index=n, id=str(n), prompt=chat, seed=11, generation=generation) for n, generation in enumerate(own)
    ]
    found = by_index(engine_of(kind, tiny, 4), requests)
    assert [c.text for c in found[:3]] == ["WA", "WA", "WASUKOTI"]
    assert [c.finish_reason for c in found[:3]] == ["length", "stop", "stop"]
    alone = by_index(
        engine_of("generate", tiny, 1, temperature=1.5, max_new_tokens=9),
        [Request(index=3, id="3", prompt=chat, seed=11)],
    )
    assert said(found[3]) == said(alone[0])


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    from hpcjobs.engines.sampling import nucleus

    scores = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.05, 0.15, 0.3, 0.5]]))
    kept = nucleus(scores, 0.75).isfinite().tolist()
    assert kept == [[True, True, False, False], [False, False, True, True]]
    assert nucleus(scores, 0.01).isfinite().sum(dim=-1).tolist() == [1, 1]


@every_engine
@pytest.mark.parametrize("how", [{"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0}])
def test_one_token_left_is_the_greedy_one(tiny: Any, kind: str, how: dict[str, Any]) -> None:
    greedy, free = _run(tiny, QUESTIONS, kind=kind), _run(tiny, QUESTIONS, kind=kind, temperature=3.0)
    assert [c.text for c in _run(tiny, QUESTIONS, kind=kind, temperature=3.0, **how)] == [c.text for c in greedy]
    assert [c.text for c in free] != [c.text for c in greedy]


@every_engine
def test_a_request_has_its_own_repetition_penalty(tiny: Any, kind: str) -> None:
    """In one batch with others: that of `generate` on its prompt alone."""
    model, tokenizer = tiny
    penalties = [None, 1.0, 1.5, 3.0, 0.7, 2.0, None]
    own = [GenerationConfig(max_new_tokens=24, repetition_penalty=penalty) for penalty in penalties]
    requests = [replace(one, generation=each) for one, each in zip(_requests(QUESTIONS), own, strict=True)]
    right = []
    for chat, penalty in zip(QUESTIONS, penalties, strict=True):
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.inference_mode():
            out = model.generate(**ids, max_new_tokens=24, do_sample=False, repetition_penalty=penalty)
        right.append(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))
    assert [c.text for c in by_index(engine_of(kind, tiny, 4), requests)] == right
    assert right != [c.text for c in _run(tiny, QUESTIONS, kind=kind, max_new_tokens=24)]


@every_engine
def test_one_bad_prompt_is_an_error_record_and_the_others_go_on(tiny: Any, kind: str) -> None:
    prompts = [QUESTIONS[0], _chat("x" * 400), [{"role": "nobody", "content": "?"}], "", QUESTIONS[1]]
    found = _run(tiny, prompts, kind=kind)
    assert [c.error is None for c in found] == [True, False, False, False, True]
    assert "no room" in found[1].error.message  # type: ignore[union-attr]
    assert found[4].text == "ucigo ucigo"


class Failing:
    """A model that breaks as CUDA does, on some inputs; what it does not break on is the real one's."""

    def __init__(self, model: Any, breaks: Any) -> None:
        self._model, self._breaks, self.sizes = model, breaks, list[tuple[int, int]]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, input_ids: Any, **how: Any) -> Any:
        self._look(input_ids)
        return self._model.generate(input_ids=input_ids, **how)

    def __call__(self, input_ids: Any, **how: Any) -> Any:
        self._look(input_ids)
        return self._model(input_ids=input_ids, **how)

    def _look(self, input_ids: Any) -> None:
        self.sizes.append(tuple(input_ids.shape))
        self._breaks(input_ids)


def test_out_of_memory_halves_the_batch_and_it_stays_halved(tiny: Any) -> None:
    def breaks(ids: Any) -> None:
        if len(ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model = Failing(tiny[0], breaks)
    found = _run((model, tiny[1]), QUESTIONS * 2, batch_size=8)
    assert [c.text for c in found] == [c.text for c in _run(tiny, QUESTIONS * 2)]
    tried, sizes = model.sizes[:2], [rows for rows, _ in model.sizes[2:]]
    assert tried == [(1, 5), (2, 12)]  # whether padding changes the answers
    assert sizes[:4] == [8, 4, 2, 2]
    assert max(sizes[6:]) <= 2


@pytest.mark.parametrize("kind", ["generate", "loop"])
def test_an_error_in_a_batch_is_narrowed_down_to_its_sample(tiny: Any, kind: str) -> None:
    poison = tiny[1].convert_tokens_to_ids("Z")

    def breaks(ids: Any) -> None:
        if (ids == poison).any():
            raise RuntimeError("device-side assert")

    found = _run((Failing(tiny[0], breaks), tiny[1]), [*QUESTIONS, _chat("Upper: Z")], 8, kind)
    assert [c.error is None for c in found] == [True] * 7 + [False]
    assert found[7].error.message == "device-side assert"  # type: ignore[union-attr]
    assert [c.text for c in found[:7]] == [c.text for c in _run(tiny, QUESTIONS)]


@every_engine
def test_logits_that_are_no_numbers_are_an_error_of_that_sample_alone(tiny: Any, kind: str) -> None:
    poison = tiny[1].convert_tokens_to_ids("Z")

    def spoil(module: Any, inputs: Any, output: Any) -> Any:
        return output.masked_fill((inputs[0] == poison)[..., None], float("nan"))

    prompts = [_chat("Upper: Z"), *QUESTIONS, _chat("Spell: Z")]
    expected = [c.text for c in _run(tiny, QUESTIONS)]
    hook = tiny[0].get_input_embeddings().register_forward_hook(spoil)
    try:
        for batch_size in (1, 4):  # the place of the bad row is the next one's
            found = _run(tiny, prompts, batch_size, kind)
            assert [c.error is None for c in found] == [False] + [True] * 7 + [False]
            assert "no numbers" in found[0].error.message  # type: ignore[union-attr]
            assert [c.text for c in found[1:-1]] == expected
    finally:
        hook.remove()


@pytest.mark.parametrize("kind", ["generate", "loop"])
def test_the_end_of_the_rank_is_no_samples_fault(tiny: Any, kind: str) -> None:
    def breaks(ids: Any) -> None:
        raise Terminated("ended by SIGTERM")

    with pytest.raises(SystemExit) as ended:
        _run((Failing(tiny[0], breaks), tiny[1]), QUESTIONS, kind=kind)
    assert ended.value.code == 143


@every_engine
def test_a_pause_of_the_source_lets_held_requests_go(tiny: Any, kind: str) -> None:
    back: list[int] = []

    def source() -> Iterator[Request | None]:
        for request in _requests(QUESTIONS[:3]):
            yield request
            while request.index not in back:  # the next one depends on this one's answer
                yield None

    for completion in engine_of(kind, tiny, 16, max_new_tokens=8).stream(source()):
        back.append(completion.index)
    assert back == [0, 1, 2]


def test_take_stops_at_size_pause_and_end() -> None:
    one, two, three = _requests(["a", "b", "c"])
    source = iter([one, two, three])
    assert take(source, 2) == ([one, two], False)
    assert take(source, 2) == ([three], True)
    assert take(iter([None, one, None, two]), 5) == ([one], False)
    assert take(iter([]), 5) == ([], True)


def test_dummy_is_a_hash_of_the_prompt() -> None:
    found = list(DummyEngine().stream(iter([*_requests(["abc"]), None])))
    assert found[0].text == hashlib.sha256(b"abc").hexdigest()[:16]
