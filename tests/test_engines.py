"""Engines: the same answers in any batch, and nothing that a prompt does ends the rank."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from hpcjobs.config import GenerationConfig
from hpcjobs.engines.base import take
from hpcjobs.engines.dummy import DummyEngine
from hpcjobs.records import Completion, Request
from hpcjobs.worker import Terminated

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.model


def _requests(prompts: list[Any]) -> list[Request]:
    return [Request(n, str(n), prompt, seed=100 + n) for n, prompt in enumerate(prompts)]


def _chat(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


QUESTIONS = [
    _chat(f"Repeat {n % 5 + 1}: {word}") for n, word in enumerate(["wecu", "ucigo", "ta", "uvol", "axun", "qiva", "lo"])
]


def _run(tiny: Any, prompts: list[Any], batch_size: int = 4, **generation: Any) -> list[Completion]:
    from hpcjobs.engines.generate import GenerateEngine

    engine = GenerateEngine(tiny[0], tiny[1], GenerationConfig(**({"max_new_tokens": 32} | generation)), batch_size)
    found = list(engine.stream(iter(_requests(prompts))))
    return sorted(found, key=lambda completion: completion.index)


def test_greedy_answers_are_those_of_plain_generate_in_any_batch(tiny: Any) -> None:
    model, tokenizer = tiny
    plain = []
    for chat in QUESTIONS:
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.inference_mode():
            out = model.generate(**ids, max_new_tokens=32, do_sample=False)
        plain.append(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))
    assert plain[1] == "ucigo ucigo"
    for batch_size in (1, 2, 3, 16):
        assert [c.text for c in _run(tiny, QUESTIONS, batch_size)] == plain


def test_counts_and_finish_reasons(tiny: Any) -> None:
    done, cut = _run(tiny, [_chat("Upper: wasukoti")])[0], _run(tiny, [_chat("Upper: wasukoti")], max_new_tokens=3)[0]
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


def test_sampling_depends_on_the_sample_alone(tiny: Any) -> None:
    hot = {"temperature": 1.5, "top_p": 0.95}
    alone = [c.text for c in _run(tiny, QUESTIONS, 1, **hot)]
    together = [c.text for c in _run(tiny, QUESTIONS, 7, **hot)]
    assert alone == together
    assert alone != [c.text for c in _run(tiny, QUESTIONS, 7)]


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    from hpcjobs.engines.sampling import nucleus

    scores = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.05, 0.15, 0.3, 0.5]]))
    kept = nucleus(scores, 0.75).isfinite().tolist()
    assert kept == [[True, True, False, False], [False, False, True, True]]
    assert nucleus(scores, 0.01).isfinite().sum(dim=-1).tolist() == [1, 1]


def test_draws_follow_the_softmax() -> None:
    from hpcjobs.engines.sampling import SeededSampler

    probabilities = torch.tensor([0.6, 0.3, 0.1])
    sampler = SeededSampler(range(20_000), temperature=1.0, top_p=1.0)
    draws = sampler(torch.empty(0), probabilities.log().repeat(20_000, 1)).argmax(dim=-1)
    shares = torch.bincount(draws, minlength=3) / 20_000
    assert torch.allclose(shares, probabilities, atol=0.015)


def test_one_bad_prompt_is_an_error_record_and_the_others_go_on(tiny: Any) -> None:
    prompts = [QUESTIONS[0], _chat("x" * 400), [{"role": "nobody", "content": "?"}], "", QUESTIONS[1]]
    found = _run(tiny, prompts)
    assert [c.error is None for c in found] == [True, False, False, False, True]
    assert "no room" in found[1].error.message  # type: ignore[union-attr]
    assert found[4].text == "ucigo ucigo"


class _Failing:
    """A model that breaks as CUDA does: on some batches; what it does not break on is the real one's."""

    def __init__(self, model: Any, breaks: Any) -> None:
        self._model, self._breaks, self.sizes = model, breaks, list[int]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, input_ids: Any, **how: Any) -> Any:
        self.sizes.append(len(input_ids))
        self._breaks(input_ids)
        return self._model.generate(input_ids=input_ids, **how)


def test_out_of_memory_halves_the_batch_and_it_stays_halved(tiny: Any) -> None:
    def breaks(ids: Any) -> None:
        if len(ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model = _Failing(tiny[0], breaks)
    found = _run((model, tiny[1]), QUESTIONS * 2, batch_size=8)
    assert [c.text for c in found] == [c.text for c in _run(tiny, QUESTIONS * 2)]
    assert model.sizes[:4] == [8, 4, 2, 2]
    assert max(model.sizes[6:]) <= 2


def test_an_error_in_a_batch_is_narrowed_down_to_its_sample(tiny: Any) -> None:
    poison = tiny[1].convert_tokens_to_ids("Z")

    def breaks(ids: Any) -> None:
        if (ids == poison).any():
            raise RuntimeError("device-side assert")

    found = _run((_Failing(tiny[0], breaks), tiny[1]), [*QUESTIONS, _chat("Upper: Z")], batch_size=8)
    assert [c.error is None for c in found] == [True] * 7 + [False]
    assert found[7].error.message == "device-side assert"  # type: ignore[union-attr]


def test_the_end_of_the_rank_is_no_samples_fault(tiny: Any) -> None:
    def breaks(ids: Any) -> None:
        raise Terminated("ended by SIGTERM")

    with pytest.raises(SystemExit) as ended:
        _run((_Failing(tiny[0], breaks), tiny[1]), QUESTIONS)
    assert ended.value.code == 143


def test_a_pause_of_the_source_lets_held_requests_go(tiny: Any) -> None:
    from hpcjobs.engines.generate import GenerateEngine

    back: list[int] = []

    def source() -> Iterator[Request | None]:
        for request in _requests(QUESTIONS[:3]):
            yield request
            while request.index not in back:  # the next one depends on this one's answer
                yield None

    engine = GenerateEngine(tiny[0], tiny[1], GenerationConfig(max_new_tokens=8), 16)
    for completion in engine.stream(source()):
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
