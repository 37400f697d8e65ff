"""Log-likelihoods: lm-evaluation-harness is what they are held against, on the tiny model."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from hpcjobs.requests import Completion, Pair, Request

pytestmark = pytest.mark.model
HEAD = "Reverse: abc cba\n\nSpell: def d-e-f\n\nUpper: ghi GHI\n\n"


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    from hpcjobs.engines.loader import load_model

    loaded: tuple[Any, Any] = load_model("tiny")
    return loaded


@pytest.fixture(scope="module")
def harness(tiny: tuple[Any, Any]) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=tiny[0], tokenizer=tiny[1], batch_size=4)


def theirs(harness: Any, kind: str, arguments: Sequence[tuple[str, ...]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    requests = [Instance(kind, {}, one, n) for n, one in enumerate(arguments)]
    found: list[Any] = getattr(harness, kind)(requests, disable_tqdm=True)
    return found


def choice(index: int, contexts: Sequence[str], continuations: Sequence[str]) -> Request:
    pairs = tuple(Pair(*pair) for pair in zip(contexts, continuations, strict=True))
    return Request(
        index=index, id=str(index), prompt=contexts[0], task="choice", options=tuple(continuations), pairs=pairs
    )


def questions(count: int) -> list[Request]:
    draw = random.Random(7)

    def word() -> str:
        return "".join(draw.choice("abcdefghij") for _ in range(draw.randint(2, 9)))

    made = []
    for index in range(count):
        context = f"{HEAD}{draw.choice(['Reverse', 'Spell', 'Upper'])}: {word()}"
        options = [f" {word()}" for _ in range(draw.randint(1, 5))]
        made.append(choice(index, [context] * len(options), options))
    return made


def run(engine: Any, requests: Sequence[Request | None]) -> list[Completion]:
    return sorted(engine.stream(iter(requests)), key=lambda completion: completion.index)


def logprobs(completions: Sequence[Completion]) -> list[float]:
    return [one for completion in completions if completion.likelihood for one in completion.likelihood.logprobs]


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_options_score_as_in_lm_evaluation_harness(tiny: tuple[Any, Any], harness: Any, batch: int) -> None:
    from hpcjobs.engines.scoring.engine import ScoringEngine

    requests = questions(20)
    done = run(ScoringEngine(*tiny, batch_size=batch), requests)
    right = theirs(harness, "loglikelihood", [(str(p.context), p.continuation) for r in requests for p in r.pairs])
    assert logprobs(done) == pytest.approx([logprob for logprob, _ in right], abs=1e-3)
    assert [greedy for c in done if c.likelihood for greedy in c.likelihood.greedy] == [greedy for _, greedy in right]
    for completion, request in zip(done, requests, strict=True):
        assert completion.likelihood
        best = max(range(len(request.pairs)), key=completion.likelihood.logprobs.__getitem__)
        assert (completion.text, completion.finish_reason) == (request.options[best], "scored")
        assert completion.completion_tokens == sum(completion.likelihood.tokens) > 0 < completion.prompt_tokens


ODD = [
    ("ends in white space \n ", "next"), ("", "no context"), ("a", " a"), ("a", "a"), ("abc" * 40, " long" * 20),
    ("x" * 600, " left end is cut"), (" ", " white space alone"), ("umlauts", " äöü€"),
    ("same", " end"), ("same", " end"),
]  # fmt: skip


def test_odd_pairs_score_as_in_lm_evaluation_harness(tiny: tuple[Any, Any], harness: Any) -> None:
    from hpcjobs.engines.scoring.engine import ScoringEngine

    done = run(ScoringEngine(*tiny), [choice(n, [c], [o]) for n, (c, o) in enumerate(ODD) if c != " "])
    right = theirs(harness, "loglikelihood", [pair for pair in ODD if pair[0] != " "])
    assert [c.error for c in done] == [None] * len(done)
    assert logprobs(done) == pytest.approx([logprob for logprob, _ in right], abs=1e-3)


def test_a_context_of_white_space_goes_on_with_its_continuation(tiny: tuple[Any, Any]) -> None:
    """lm-evaluation-harness has nothing left to condition on then, and stops: here it is scored as it stands."""
    from hpcjobs.engines.scoring.engine import ScoringEngine

    (done,) = run(ScoringEngine(*tiny), [choice(0, [" "], ["a"])])
    assert done.error is None
    assert logprobs([done])[0] < 0


def test_options_with_contexts_of_their_own(tiny: tuple[Any, Any], harness: Any) -> None:
    from hpcjobs.engines.scoring.engine import ScoringEngine

    contexts = ["The cup is too big, so the cup", "The cup is too big, so the bag"]
    done = run(ScoringEngine(*tiny), [choice(0, contexts, [" is full", " is full"])])
    right = theirs(harness, "loglikelihood", [(context, " is full") for context in contexts])
    assert logprobs(done) == pytest.approx([logprob for logprob, _ in right], abs=1e-3)


TEXTS = ["one", "some more words than one", "windows " * 80, "w" * 257, "w" * 256, "äöü" * 100]


def test_texts_score_as_in_lm_evaluation_harness(tiny: tuple[Any, Any], harness: Any) -> None:
    """Among them texts that are longer than the model's 256 positions."""
    from hpcjobs.engines.scoring.engine import ScoringEngine

    done = run(
        ScoringEngine(*tiny),
        [Request(index=n, id=str(n), prompt=text, task="perplexity") for n, text in enumerate(TEXTS)],
    )
    assert logprobs(done) == pytest.approx(theirs(harness, "loglikelihood_rolling", [(t,) for t in TEXTS]), abs=5e-3)
    tokens = [len(tiny[1](text).input_ids) for text in TEXTS]
    assert [c.completion_tokens for c in done] == tokens
    assert max(tokens) > 2 * 256


def test_the_plain_way_gives_the_same(tiny: tuple[Any, Any]) -> None:
    from hpcjobs.engines.scoring.engine import ScoringEngine
    from hpcjobs.engines.scoring.sequences import PlainScorer

    requests = questions(12)
    tree, plain = (run(ScoringEngine(*tiny, scorer=scorer), requests) for scorer in (None, PlainScorer(tiny[0])))
    assert logprobs(tree) == pytest.approx(logprobs(plain), abs=1e-3)


def test_what_questions_share_is_computed_once(tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from hpcjobs.engines.scoring.engine import ScoringEngine
    from hpcjobs.engines.scoring.passes import Passes

    tokens = 0
    plain = Passes.run

    def counted(self: Any, nodes: Any, wanted: Any) -> Any:
        nonlocal tokens
        tokens += sum(len(node.tokens) for node in nodes)
        return plain(self, nodes, wanted)

    requests, head = questions(30), len(tiny[1](HEAD).input_ids)
    engine = ScoringEngine(*tiny, batch_size=3)
    monkeypatch.setattr(Passes, "run", counted)
    run(engine, requests)
    texts = [str(pair.context) + pair.continuation for request in requests for pair in request.pairs]
    own = sum(len(tiny[1](text).input_ids) - head for text in texts)
    assert tokens < own + 2 * head  # 30 questions of up to 5 options: the head once, and kept over the windows


def test_after_a_pause_nothing_is_left_of_what_was_before(tiny: tuple[Any, Any]) -> None:
    """With `deterministic` the source pauses at each chunk: a chunk's numbers are then the same on any rank."""
    from hpcjobs.engines.scoring.engine import ScoringEngine

    requests = questions(20)
    alone = run(ScoringEngine(*tiny, fresh=True), requests[10:])
    after = run(ScoringEngine(*tiny, fresh=True), [*requests[:10], None, *requests[10:]])[10:]
    assert [c.likelihood for c in after] == [c.likelihood for c in alone]  # bit for bit


def test_one_bad_request_fails_alone(tiny: tuple[Any, Any]) -> None:
    from hpcjobs.engines.scoring.engine import ScoringEngine

    good, bad = questions(6), [choice(6, ["a"], [""]), choice(7, ["a"], ["x" * 600])]
    chat = Request(index=8, id="8", prompt=[{"role": "user", "content": "text"}], task="perplexity")
    empty = Request(index=9, id="9", prompt="", task="perplexity")
    done = run(ScoringEngine(*tiny), [*good, *bad, chat, empty])
    assert [c.error is None for c in done] == [True] * 6 + [False] * 4
    said = [c.error.message for c in done if c.error]
    for message, words in zip(said, ["no tokens", "longer than 256", "perplexity of a chat", "no tokens"], strict=True):
        assert words in message


@dataclass
class Troubled:
    """A scorer that refuses what it is told to refuse, before it has scored anything."""

    inner: Any
    most: int = 1000
    poison: int = -1
    error: type[Exception] = RuntimeError
    asked: int = 0

    def score(self, jobs: Sequence[Any]) -> Iterator[Any]:
        self.asked += 1
        if len(jobs) > self.most or any(job.request.index == self.poison for job in jobs):
            raise self.error("no")
        return self.inner.score(jobs)  # type: ignore[no-any-return]

    def smaller(self) -> bool:
        self.most //= 2
        return self.most > 0

    def forget(self) -> None:
        self.inner.forget()


def test_a_model_that_fails_for_one_request(tiny: tuple[Any, Any]) -> None:
    from hpcjobs.engines.scoring.engine import ScoringEngine
    from hpcjobs.engines.scoring.tree import TreeScorer

    requests = questions(9)
    done = run(ScoringEngine(*tiny, scorer=Troubled(TreeScorer(tiny[0]), poison=4)), requests)
    assert [c.index for c in done if c.error] == [4]
    good = [c for c in run(ScoringEngine(*tiny), requests) if c.index != 4]
    assert logprobs(done) == pytest.approx(logprobs(good), abs=1e-3)


def test_out_of_memory_takes_smaller_passes(tiny: tuple[Any, Any]) -> None:
    import torch

    from hpcjobs.engines.scoring.engine import ScoringEngine
    from hpcjobs.engines.scoring.passes import Passes
    from hpcjobs.engines.scoring.tree import TreeScorer

    scorer, run_pass = TreeScorer(tiny[0]), Passes(tiny[0]).run

    def small_only(nodes: Any, wanted: Any) -> Any:
        if sum(len(node.tokens) for node in nodes) > 100:
            raise torch.OutOfMemoryError("no room")
        return run_pass(nodes, wanted)

    scorer._passes.run = small_only  # type: ignore[method-assign]
    requests = questions(9)
    done = run(ScoringEngine(*tiny, scorer=scorer), requests)
    assert [c.error for c in done] == [None] * 9
    assert logprobs(done) == pytest.approx(logprobs(run(ScoringEngine(*tiny), requests)), abs=1e-3)


def test_numbers_that_are_none_are_an_error_record(tiny: tuple[Any, Any]) -> None:
    import torch

    from hpcjobs.engines.scoring.engine import ScoringEngine

    weight = tiny[0].get_input_embeddings().weight
    token = tiny[1]("Q", add_special_tokens=False).input_ids[-1]
    before = weight[token].clone()
    try:
        with torch.no_grad():
            weight[token] = float("nan")
        done = run(ScoringEngine(*tiny, scorer=_tree(tiny[0])), [choice(0, ["Q"], [" a"])])
    finally:
        with torch.no_grad():
            weight[token] = before
    assert done[0].error
    assert "not finite" in done[0].error.message


def _tree(model: Any) -> Any:
    from hpcjobs.engines.scoring.tree import TreeScorer

    return TreeScorer(model)


def test_a_model_whose_branches_come_out_wrong_is_run_plainly(
    tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from hpcjobs.engines.scoring import passes
    from hpcjobs.engines.scoring.engine import scorer_of
    from hpcjobs.engines.scoring.sequences import PlainScorer
    from hpcjobs.engines.scoring.tree import TreeScorer

    assert isinstance(scorer_of(tiny[0]), TreeScorer)
    all_seen = passes._mask
    monkeypatch.setattr(passes, "_mask", lambda *args: all_seen(*args) * 0)  # every branch sees every other
    assert isinstance(scorer_of(tiny[0]), PlainScorer)
    assert "without" in caplog.text
    monkeypatch.setattr(passes, "_mask", lambda *args: 1 / 0)
    assert isinstance(scorer_of(tiny[0]), PlainScorer)


def _small(kind: str) -> Any:
    import transformers

    shape = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 103, "intermediate_size": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
    configs: dict[str, Any] = {
        "qwen3": lambda: transformers.Qwen3Config(**shape, **heads, head_dim=8),
        "gpt2": lambda: transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=103, n_positions=256),
        "gptneox": lambda: transformers.GPTNeoXConfig(**shape, num_attention_heads=4, max_position_embeddings=256),
        "mistral": lambda: transformers.MistralConfig(**shape, **heads, sliding_window=8, head_dim=8),
        "gemma3": lambda: transformers.Gemma3TextConfig(**shape, **heads, sliding_window=8, head_dim=8),
        "gptneo": lambda: transformers.GPTNeoConfig(
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            vocab_size=103,
            attention_types=[[["global", "local"], 1]],
            window_size=32,
            max_position_embeddings=256,
        ),
        "mamba": lambda: transformers.MambaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=103, state_size=4),
    }
    config = configs[kind]()
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config, name, 0)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize(
    ("kind", "shares"),
    [
        ("qwen3", True),
        ("gpt2", True),
        ("gptneox", True),
        ("mistral", False),
        ("gemma3", False),
        ("mamba", False),
        ("gptneo", False),
    ],
)
def test_models_of_other_kinds(tiny: tuple[Any, Any], kind: str, shares: bool) -> None:
    """With random weights; each against one pass over each whole sequence."""
    import torch

    from hpcjobs.engines.scoring.engine import ScoringEngine, scorer_of
    from hpcjobs.engines.scoring.sequences import PlainScorer

    torch.manual_seed(0)
    model, tokenizer = _small(kind), tiny[1]
    assert isinstance(scorer_of(model), PlainScorer) != shares
    requests = questions(4)
    done = run(ScoringEngine(model, tokenizer), requests)
    assert [c.error for c in done] == [None] * 4
    right = []
    for pair in (pair for request in requests for pair in request.pairs):
        head = tokenizer(pair.context).input_ids
        ids = torch.tensor([tokenizer(str(pair.context) + pair.continuation).input_ids])
        with torch.no_grad():
            table = model(ids).logits[0].log_softmax(-1)
        right.append(sum(table[n - 1, ids[0, n]].item() for n in range(len(head), ids.shape[1])))
    assert logprobs(done) == pytest.approx(right, abs=1e-3)


def test_bfloat16(tiny: tuple[Any, Any]) -> None:
    import torch

    from hpcjobs.engines.loader import load_model
    from hpcjobs.engines.scoring.engine import ScoringEngine, scorer_of
    from hpcjobs.engines.scoring.tree import TreeScorer

    model, tokenizer = load_model("tiny", dtype=torch.bfloat16)
    assert isinstance(scorer_of(model), TreeScorer)
    requests = questions(5)
    low, high = (run(ScoringEngine(*each), requests) for each in ((model, tokenizer), tiny))
    assert logprobs(low) == pytest.approx(logprobs(high), rel=0.05, abs=1)


def test_a_chat_is_scored_behind_its_template(tiny: tuple[Any, Any], harness: Any) -> None:
    from hpcjobs.engines.scoring.engine import ScoringEngine

    chat = [{"role": "user", "content": "Reverse: abc"}]
    text = tiny[1].apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    request = Request(index=0, id="0", prompt=chat, task="choice", options=("cba",), pairs=(Pair(chat, "cba"),))
    done = run(ScoringEngine(*tiny), [request])
    assert logprobs(done) == pytest.approx([theirs(harness, "loglikelihood", [(text, "cba")])[0][0]], abs=1e-3)
