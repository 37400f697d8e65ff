"""Log-likelihoods of texts and options of every length, against lm_eval's rolling values and transformers by hand.

The limits: a pass (384 tokens on a CPU), the model's positions, the tokens that are kept for later questions. The whole
form (HPCJOBS_LENGTHS=whole) has texts of up to 20,000 tokens.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.config import GenerationConfig
from tests.reference.lengths import (
    WHOLE,
    by_hand,
    choice,
    harness,
    loaded,
    logprobs,
    rolling,
    run,
    save_model,
    text_of,
    theirs,
)
from tests.toy_tokenizers import CORPUS, TOKENIZERS

pytestmark = pytest.mark.model
PASS = 384
NEAR = 1e-4  # relative
# Tokens around one, two and three passes, the first token included.
PASSES = (1, 2, 3) if WHOLE else (1, 2)
AROUND = sorted({1, 2, 3, *(n * PASS + more for n in PASSES for more in (-1, 0, 1))})
LONG = [1500, 4095, 4096, 4097, 8191, 8192, 8193, 10_000, 16_384, 19_999, 20_000] if WHOLE else [1500]
# (model type, positions): more than all texts, and few, so that texts are scored in windows.
MODELS = [("llama", 32_768), ("llama", 64), ("gpt2", 500), ("mistral", 900), ("llama", 8)]
MODELS += [("llama", 4096), ("mistral", 32_768), ("mamba", 0)] if WHOLE else []


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Makes a model folder once."""

    @functools.cache
    def make(kind: str, positions: int, tokenizer: str = "byte_bpe_bos") -> Path:
        return save_model(tmp_path_factory.mktemp("model"), kind, positions, tokenizer)

    return make


def scoring(folder: Path, engine: str = "loop", batch: Any = "auto") -> Any:
    from hpcjobs.engines.pick import EngineSpec, make_engine

    spec = EngineSpec(engine=engine, batch_size=batch, task="perplexity")
    return make_engine(*loaded(folder), GenerationConfig(), spec)


@pytest.mark.parametrize("engine", ["loop", "transformers"])
@pytest.mark.parametrize(("kind", "positions"), MODELS)
def test_texts_of_every_length_have_lm_evals_rolling_values(
    folder_of: Any, kind: str, positions: int, engine: str
) -> None:
    folder = folder_of(kind, positions)
    lengths = [*AROUND, *(positions + more for more in (-1, 0, 1) if 0 < positions <= 4096), *LONG]
    if positions == 8 and not WHOLE:  # lm_eval scores some hundred windows of a longer text one by one
        lengths = [length for length in lengths if length <= PASS + 1]
    texts = [text_of(length - 1) for length in lengths if length > 0]
    done = run(scoring(folder, engine), [rolling(n, text) for n, text in enumerate(texts)])
    tokenizer = loaded(folder)[1]
    assert [one.completion_tokens for one in done] == [len(tokenizer(text).input_ids) for text in texts]
    assert {1, PASS, PASS + 1, lengths[-1]} <= {one.completion_tokens for one in done}
    assert logprobs(done) == pytest.approx(_rolling(folder, tuple(texts)), NEAR)


@functools.cache
def _rolling(folder: Path, texts: tuple[str, ...]) -> Any:
    return theirs(_harness(folder), "loglikelihood_rolling", [(text,) for text in texts])


@functools.cache
def _harness(folder: Path) -> Any:
    return harness(folder)


@pytest.mark.parametrize("length", [1, PASS - 1, 2 * PASS, LONG[-1]])
def test_a_text_alone_is_what_one_forward_pass_gives(folder_of: Any, length: int) -> None:
    model, tokenizer = loaded(folder_of("llama", 32_768))
    ids = tokenizer(text_of(length)).input_ids
    (done,) = run(scoring(folder_of("llama", 32_768)), [rolling(0, text_of(length))])
    assert logprobs([done]) == pytest.approx([by_hand(model, [1], ids)], NEAR)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenizers_that_add_tokens_at_either_end_or_none(folder_of: Any, name: str) -> None:
    words = " ".join(sorted({*" ".join(CORPUS).split(" ")})[:40])
    texts = ["a", "Paris", " The fox", "The fox ", words, f"{words} {words[::-1]} {words}"]
    folder = folder_of("llama", 64, name)
    done = run(scoring(folder), [rolling(n, text) for n, text in enumerate(texts)])
    assert logprobs(done) == pytest.approx(
        theirs(harness(folder), "loglikelihood_rolling", [(t,) for t in texts]), NEAR
    )


def test_an_empty_text(folder_of: Any) -> None:
    """Tokens that a tokenizer adds are scored. A text without any is an error, but 0 in lm_eval's tasks, as there."""
    from dataclasses import replace

    for name, tokens in (("byte_bpe_bos", 1), ("byte_bpe_bos_eos", 2), ("byte_bpe", 0)):
        folder = folder_of("llama", 64, name)
        own, of_lm_eval = run(scoring(folder), [rolling(0, ""), replace(rolling(1, ""), truncate="left")])
        assert logprobs([of_lm_eval]) == pytest.approx(theirs(harness(folder), "loglikelihood_rolling", [("",)]), NEAR)
        assert of_lm_eval.completion_tokens == tokens
        assert (own.error is None) == bool(tokens)
        assert own.error is None or "the text has no tokens" in own.error.message


def _questions() -> list[tuple[str, list[str]]]:
    """Contexts and options around a pass: long contexts with short options, long shared heads, long options."""
    head = text_of(PASS - 3, 1)
    lengths = [1, *(n * PASS + more for n in PASSES for more in (-2, -1, 0, 1))]
    lengths += [8192, 16_384, 20_000] if WHOLE else [1300]
    asked = [(text_of(length, 2), ["7", "XQ", "=;="]) for length in lengths]
    for more in (0, 2, 3, 4, PASS, 2 * PASS):  # few-shot heads that several questions share
        shared = head + text_of(more, 3)
        asked += [(shared + text_of(4, seed), ["Z", "Z7"]) for seed in (4, 5, 6)[: len(PASSES)]]
    for length in (PASS - 1, PASS, PASS + 1, 2 * PASS + 1):  # options of about a pass, alike at their beginnings
        option = text_of(length, 7)
        asked.append((text_of(5, 8), [option, option[:-1] + "7Q", option + "X", "7"]))
    asked.append((head + text_of(2 * PASS, 9), [text_of(PASS + 5, 10), text_of(PASS + 6, 11)]))
    return asked


@pytest.mark.parametrize("batch", [1, "auto"])
@pytest.mark.parametrize(
    ("kind", "positions"), [("llama", 32_768), ("gpt2", 1200), *([("mistral", 1200)] if WHOLE else [])]
)
def test_options_around_a_pass_have_lm_evals_values(folder_of: Any, kind: str, positions: int, batch: Any) -> None:
    """And, where the model has fewer positions, of contexts whose beginning is cut off."""
    folder = folder_of(kind, positions)
    asked = _questions()
    done = run(scoring(folder, batch=batch), [choice(n, *one) for n, one in enumerate(asked)])
    right = _lm_eval_choices(folder, kind)
    assert logprobs(done) == pytest.approx([logprob for logprob, _ in right], NEAR)
    assert [greedy for one in done if one.likelihood for greedy in one.likelihood.greedy] == [good for _, good in right]


@functools.cache
def _lm_eval_choices(folder: Path, kind: str) -> Any:
    pairs = [(context, option) for context, options in _questions() for option in options]
    return theirs(_harness(folder), "loglikelihood", pairs)


@pytest.mark.parametrize("positions", [64, PASS])
def test_options_as_long_as_the_model_reads(folder_of: Any, positions: int) -> None:
    """One token more, and nothing of the context is left: an error here, an AssertionError in lm_eval."""
    folder = folder_of("llama", positions)
    asked = [("7X", text_of(positions + more)) for more in (-2, -1, 0)]
    asked += [("", text_of(positions - 1)), ("", text_of(positions))]
    done = run(scoring(folder), [choice(n, context, [option]) for n, (context, option) in enumerate(asked)])
    assert logprobs(done) == pytest.approx([one for one, _ in theirs(_harness(folder), "loglikelihood", asked)], NEAR)
    for context in ("7X", ""):
        (long,) = run(scoring(folder), [choice(0, context, [text_of(positions + 1)])])
        assert long.error
        assert f"continuation of {positions + 1} tokens is longer than {positions} positions" in long.error.message
        with pytest.raises(AssertionError):
            theirs(_harness(folder), "loglikelihood", [(context, text_of(positions + 1))])


def test_truncate_error_refuses_what_would_be_cut(folder_of: Any) -> None:
    from dataclasses import replace

    asked = [replace(choice(n, text_of(length), ["7"]), truncate="error") for n, length in enumerate((62, 63, 64))]
    done = run(scoring(folder_of("llama", 64)), asked)  # a first token before, and an option behind that is not read
    assert [one.error is None for one in done] == [True, True, False]
    assert done[2].error
    assert "prompt and option have 65 tokens, and the model 64 positions" in done[2].error.message


@pytest.mark.parametrize("name", TOKENIZERS)
def test_contexts_of_nothing_or_of_white_space(folder_of: Any, name: str) -> None:
    """As lm_eval scores them where it does; what has no tokens to condition on is an error, never another number."""
    folder = folder_of("llama", 64, name)
    given = theirs_or_none(harness(folder), [("", "Paris"), (" ", "Paris"), ("\n\n", "Paris"), ("a ", "Paris")])
    contexts = ["", " ", "\n\n", "a "]
    done = run(scoring(folder), [choice(n, context, ["Paris"]) for n, context in enumerate(contexts)])
    for one, right in zip(done, given, strict=True):
        assert right is None or logprobs([one]) == pytest.approx([right], NEAR)
    assert given[0] is not None
    assert given[3] is not None


def theirs_or_none(harness: Any, pairs: list[tuple[str, str]]) -> list[float | None]:
    found = list[float | None]()
    for pair in pairs:
        try:
            found.append(theirs(harness, "loglikelihood", [pair])[0][0])
        except (AssertionError, RuntimeError):  # it has nothing to condition on
            found.append(None)
    return found


def test_smaller_passes_give_the_same(folder_of: Any) -> None:
    """After memory ran out: 12 tokens a pass, so that a path is dozens of nodes."""
    from hpcjobs.engines.scoring.engine import ScoringEngine
    from hpcjobs.engines.scoring.tree import TreeScorer

    model, tokenizer = loaded(folder_of("llama", 32_768))
    small = TreeScorer(model)
    assert [small.smaller() for _ in range(4)] == [True] * 4
    requests = [rolling(0, text_of(700)), *(choice(n, *one) for n, one in enumerate(_questions()[:20], 1))]
    small_done = run(ScoringEngine(model, tokenizer, scorer=small), requests)
    assert logprobs(small_done) == pytest.approx(logprobs(run(ScoringEngine(model, tokenizer), requests)), NEAR)


@pytest.mark.parametrize("batch", [1, 2, "auto"] if WHOLE else [2])
def test_small_limits_give_the_same(folder_of: Any, batch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens kept for later questions, tokens of a window, rows of logits: met many times, below, at and above."""
    from hpcjobs.engines.scoring import engine as scoring_engine
    from hpcjobs.engines.scoring import passes, spans, tree

    monkeypatch.setattr(passes, "_LOGITS_BYTES", 1)  # 32 tokens a pass
    monkeypatch.setattr(scoring_engine, "_WINDOW_TOKENS", 40)
    monkeypatch.setattr(spans, "_ROWS", 8)
    folder, requests = folder_of("llama", 32_768), list[Any]()
    for length in (19, 20, 21, 31, 32, 33, 40, 41) if WHOLE else (19, 20, 21, 33):  # heads that several questions share
        head = text_of(length - 1, 1)
        requests += [choice(0, head + text_of(3, seed), ["7", "XQ", text_of(8, seed)]) for seed in (4, 5)]
        requests += [choice(0, head, ["7", "Z", "7Z"]), rolling(0, head), rolling(0, head + text_of(length, 9))]
    requests = [_numbered(n, one) for n, one in enumerate(requests)]
    right = _plainly(folder, requests)
    for most in (0, 19, 20, 21, 40, 70) if WHOLE else (0, 20, 70):
        monkeypatch.setattr(tree, "_PREFIX_TOKENS", most)
        engine = scoring(folder, batch=batch)
        assert logprobs(run(engine, requests)) == pytest.approx(right, NEAR)
        assert len(engine._scorer._prefixes) <= most


def _numbered(number: int, request: Any) -> Any:
    from dataclasses import replace

    return replace(request, index=number, id=str(number))


def _plainly(folder: Path, requests: list[Any]) -> list[float]:
    """One forward pass for each option or text."""
    model, tokenizer = loaded(folder)
    found = list[float]()
    for one in requests:
        parts = [(tokenizer(pair.context).input_ids, pair.context + pair.continuation) for pair in one.pairs]
        parts = parts or [([1], one.prompt)]
        for context, whole in parts:
            ids = tokenizer(whole).input_ids
            found.append(by_hand(model, context, ids[len(context) if one.pairs else 0 :]))
    return found


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_keys_values_and_logits_are_let_go(folder_of: Any, kind: str) -> None:
    """A long text's logits are never there as a whole, and nothing is left of its keys and values."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    engine = scoring(folder_of(kind, 32_768))
    run(engine, [rolling(0, text_of(PASS))])
    sizes = list[int]()

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.shape[-1:] == (512,):
                sizes.append(out.numel() // 512)
            return out

    with Watch():  # type: ignore[no-untyped-call]
        (done,) = run(engine, [rolling(0, text_of(LONG[-1]))])
    assert done.completion_tokens == LONG[-1] + 1
    assert 0 < max(sizes) <= PASS
    kept = getattr(engine._scorer, "_prefixes", ())
    assert len(kept) == 0
