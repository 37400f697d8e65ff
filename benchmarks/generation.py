"""Generation: our loop against transformers' `generate` in batches sorted by length, and against bare forward passes.

    python benchmarks/generation.py [--part chats] [--part lengths] [--model FOLDER] [--data squad.jsonl]

On CPU in float32, greedy; $HPCJOBS_REAL has SmolLM2-135M-Instruct and squad.jsonl (tools/fetch_real.py).

chats: answers about SQuAD rows that end when the model ends them. lengths: each answer has a length of its own, drawn
from a lognormal distribution, which no side knows before: the row ends there, and end tokens do not end it.

generate: what lm_eval and most scripts do, prompts sorted by length, batches of 16. Tokens of both sides are compared.
stock bound: nothing but forward passes of the model as transformers runs it, over as many prompt and new tokens: full
passes of prompts, then a step a token of the rows that are left when the longest answers begin first. No scheduling, no
choice of tokens, no text. packed bound: the same by the passes of which our loop consists.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from hpcjobs.config import GenerationConfig
from hpcjobs.engines.encoding import Answer, TextCodec, prompt_ids
from hpcjobs.engines.loader import load_model
from hpcjobs.engines.loop.engine import LoopEngine
from hpcjobs.engines.loop.packed import PackedModel, Piece
from hpcjobs.requests import Request

Tokens = list[int]
BATCH = 16
PASS_TOKENS = 1024
QUESTION = "{context}\n\nAnswer with a few words from the text above. {question}"


@dataclass(frozen=True)
class Case:
    """`natural`: rows end by themselves, or after `most` tokens; else at a drawn length of median exp(`middle`)."""

    name: str
    rows: int
    batch: int
    natural: bool
    most: int
    middle: float = 0.0


CASES = {
    "chats": Case("chats", rows=48, batch=48, natural=True, most=256),
    "lengths": Case("lengths", rows=96, batch=64, natural=False, most=400, middle=3.5),
}


class Limits:
    """A stopping criterion: each row ends at its own length, as if the model had ended it."""

    def __init__(self, lengths: Sequence[int], prompt_length: int) -> None:
        self._lengths, self._prompt_length = torch.tensor(lengths), prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return self._lengths <= input_ids.shape[1] - self._prompt_length


def by_generate(model: Any, tokenizer: Any, prompts: Sequence[Tokens], lengths: Sequence[int], natural: bool) -> Any:
    """New tokens of each prompt, from batches sorted by length."""
    made: list[Tokens] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda n: -len(prompts[n]))
    for first in range(0, len(order), BATCH):
        batch = order[first : first + BATCH]
        longest = len(prompts[batch[0]])
        ids = torch.full((len(batch), longest), tokenizer.pad_token_id)
        for row, number in enumerate(batch):
            ids[row, longest - len(prompts[number]) :] = torch.tensor(prompts[number])
        mask = (torch.arange(longest) >= torch.tensor([longest - len(prompts[n]) for n in batch])[:, None]).long()
        criterion: Any = Limits([lengths[n] for n in batch], longest)
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=max(lengths[n] for n in batch),
                stopping_criteria=transformers.StoppingCriteriaList([criterion]), pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id if natural else None,
            )  # fmt: skip
        for number, row in zip(batch, output[:, longest:].tolist(), strict=True):
            made[number] = until(row[: lengths[number]], tokenizer.eos_token_id if natural else None)
    tokenizer.batch_decode(made, skip_special_tokens=True)
    return made


def until(tokens: Tokens, end: int | None) -> Tokens:
    """The tokens up to `end`, with it."""
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens


class TokenCoder(TextCodec):
    """Answers whose text is the list of their tokens, so that both sides can be compared; the text is made too."""

    def answer(self, made: Sequence[int], generation: GenerationConfig) -> Answer:
        return dataclasses.replace(super().answer(made, generation), text=json.dumps(list(made)))

    def never_end(self) -> None:
        """Every answer has all the tokens that it may have."""
        self._ends = frozenset()


def by_loop(model: Any, tokenizer: Any, chats: Sequence[Any], lengths: Sequence[int], case: Case) -> list[Tokens]:
    """New tokens of each chat, from our engine."""
    engine = LoopEngine(model, tokenizer, GenerationConfig(), case.batch)
    engine.codec = TokenCoder(model, tokenizer, GenerationConfig())
    if not case.natural:
        engine.codec.never_end()
    requests = [
        Request(index=n, id=str(n), prompt=chat, generation=GenerationConfig(max_new_tokens=lengths[n]))
        for n, chat in enumerate(chats)
    ]
    made = {completion.index: json.loads(completion.text) for completion in engine.stream(iter(requests))}
    return [made[number] for number in range(len(chats))]


def schedule(prompts: Sequence[int], lengths: Sequence[int], batch: int) -> list[list[tuple[int, int]]]:
    """Of each decode step the (place, columns) of its rows, in the order that ends first: longest answers first."""
    waiting = sorted(zip(lengths, prompts, strict=True))
    rows: dict[int, list[int]] = {}  # place: columns, new tokens left; the first new token is the prompt's
    steps = []
    while waiting or rows:
        for place in range(batch):
            if waiting and place not in rows:
                length, prompt = waiting.pop()
                rows[place] = [prompt, length - 1]
        rows = {place: row for place, row in rows.items() if row[1] > 0}
        steps.append([(place, row[0]) for place, row in sorted(rows.items())])
        for row in rows.values():
            row[0], row[1] = row[0] + 1, row[1] - 1
    return [step for step in steps if step]


@torch.inference_mode()
def stock_bound(model: Any, prompts: Sequence[int], steps: Sequence[Sequence[tuple[int, int]]]) -> float:
    """Seconds of the model's own passes alone, all prompts and all rows of a step of middle length."""
    clock, prompt = Clock(), round(statistics.mean(prompts))
    each = max(1, PASS_TOKENS // prompt)
    for first in range(0, len(prompts), each):
        ids = torch.full((min(each, len(prompts) - first), prompt), 9)
        clock.run(partial(model, input_ids=ids, use_cache=True, logits_to_keep=1))
    cache: Any = None
    for step in steps:
        columns = round(statistics.mean(columns for _, columns in step))
        if cache is None or cache.rows != len(step) or abs(cache.get_seq_length() - columns) > 8:
            cache = filled_cache(model, len(step), columns)
        ids = torch.full((len(step), 1), 9)
        clock.run(partial(model, input_ids=ids, past_key_values=cache, use_cache=True))
    return clock.seconds


def filled_cache(model: Any, rows: int, columns: int) -> Any:
    """A cache that holds `columns` of each row, without computing them."""
    config = model.config
    cache = transformers.DynamicCache(config=config)
    shape = (rows, config.num_key_value_heads, columns, config.head_dim)
    for layer in range(config.num_hidden_layers):
        cache.update(torch.zeros(shape), torch.zeros(shape), layer)
    cache.rows = rows
    return cache


@torch.inference_mode()
def packed_bound(model: Any, prompts: Sequence[int], steps: Sequence[Sequence[tuple[int, int]]], batch: int) -> float:
    """Seconds of the passes that our loop makes alone: prompts in full passes, then the steps."""
    clock, packed = Clock(), PackedModel(model, batch)
    packed.cache.reserve(1 + max(columns for step in steps for _, columns in step))
    each = max(1, round(PASS_TOKENS / statistics.mean(prompts)))
    for first in range(0, len(prompts), each):
        some = prompts[first : first + each]
        pieces = [Piece(place=place, start=0, tokens=[9] * prompt) for place, prompt in enumerate(some)]
        clock.run(partial(packed.logits, pieces))
    for step in steps:
        pieces = [Piece(place=place, start=columns, tokens=[9]) for place, columns in step]
        clock.run(partial(packed.logits, pieces))
    return clock.seconds


class Clock:
    """Sums the seconds of what it runs."""

    seconds = 0.0

    def run(self, work: Callable[[], Any]) -> None:
        started = time.perf_counter()
        work()
        self.seconds += time.perf_counter() - started


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    done = work()
    return time.perf_counter() - started, done


def run(case: Case, model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]]) -> None:
    chats = [[{"role": "user", "content": QUESTION.format(**row)}] for row in rows[: case.rows]]
    prompts = [prompt_ids(tokenizer, chat) for chat in chats]
    rng = random.Random(0)
    lengths = [case.most] * case.rows
    if not case.natural:
        lengths = [min(case.most, max(1, round(rng.lognormvariate(case.middle, 1.0)))) for _ in prompts]
    print(f"{case.name}: {case.rows} prompts of {statistics.mean(map(len, prompts)):.0f} tokens, batch {case.batch}")
    ours, made = timed(lambda: by_loop(model, tokenizer, chats, lengths, case))
    print(f"  loop         {ours:8.2f} s", flush=True)
    theirs, plain = timed(lambda: by_generate(model, tokenizer, prompts, lengths, case.natural))
    print(f"  generate     {theirs:8.2f} s, {theirs / ours:.2f} times that of loop", flush=True)
    sizes, counts = list(map(len, prompts)), list(map(len, plain))
    steps = schedule(sizes, counts, case.batch)
    stock, packed = stock_bound(model, sizes, steps), packed_bound(model, sizes, steps, case.batch)
    print(f"  stock bound  {stock:8.2f} s: loop has {stock / ours:.2f} of its speed")
    print(f"  packed bound {packed:8.2f} s: loop has {packed / ours:.2f} of its speed")
    same = sum(one == other for one, other in zip(made, plain, strict=True))
    print(f"  equal tokens: {same} of {case.rows} rows; {sum(counts)} new tokens in {len(steps)} steps, ", end="")
    print(f"{min(counts)} to {max(counts)} a row, median {statistics.median(counts):.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = Path(os.environ.get("HPCJOBS_REAL", "real"))
    parser.add_argument("--part", choices=sorted(CASES), help="default: both")
    parser.add_argument("--model", default=str(folder / "SmolLM2-135M-Instruct"))
    parser.add_argument("--data", default=str(folder / "squad.jsonl"))
    given = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    model, tokenizer = load_model(given.model, dtype=torch.float32)
    rows = [json.loads(line) for line in Path(given.data).read_text(encoding="utf-8").splitlines()]
    model(input_ids=torch.full((4, 64), 9))  # the first pass reads the weights from disk
    for name in [given.part] if given.part else CASES:
        run(CASES[name], model, tokenizer, rows)


if __name__ == "__main__":
    main()
