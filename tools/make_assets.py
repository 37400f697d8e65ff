"""Make the assets that ship with hpcjobs: two data sets and the tiny model that solves them.

`python tools/make_assets.py` rewrites `hpcjobs/assets/`. Everything follows from fixed seeds and one CPU
thread: the data sets are the same bytes everywhere, the weights up to the rounding of the machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

ASSETS = Path(__file__).resolve().parent.parent / "hpcjobs" / "assets"
CONFIG = ASSETS.parent.parent / "configs" / "train_tiny.yaml"
DATA_SETS = {"canned_50_quick": 50, "unified": 600}
SPLIT_PERCENT = {"canned_50_quick": 5, "unified": 15}  # of all operands; the rest is for training
SEED = 20240
DRILLS = 48_000  # chats to learn from
MAX_POSITIONS = 256
SPECIAL_TOKENS = ["<|pad|>", "<unk>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
CHARACTERS = "\n" + "".join(chr(code) for code in range(32, 127))
SYSTEM_TEXTS = [*[""] * 17, "Be brief.", "Answer only.", "You are a helpful assistant."]
CHAT_TEMPLATE = (
    "{{- '<|bos|>' -}}"
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] -%}"
    "{{- raise_exception('unknown role ' + message['role'] + '; valid: system, user, assistant') -}}"
    "{%- endif -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


@dataclass(frozen=True)
class Row:
    """One question with its only right answer. `task` names a key of `TASKS`."""

    id: str
    task: str
    question: str
    answer: str


@dataclass(frozen=True)
class Drawn:
    """A random question; `key` is the operand by which it falls to one split."""

    key: str
    question: str
    answer: str


def split_of(key: str) -> str:
    """Name the only split, "train" or a key of `DATA_SETS`, in which the operand `key` may be used."""
    place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 100
    for name, percent in SPLIT_PERCENT.items():
        if place < percent:
            return name
        place -= percent
    return "train"


def draw_word(rng: random.Random, lengths: str) -> str:
    """Make a pronounceable word, no letter twice; its length is a digit of `lengths`, each equally likely."""
    size, start = int(rng.choice(lengths)), rng.randrange(2)
    sounds = (rng.sample("bcdfghjklmnpqrstvwxyz", 5), rng.sample("aeiou", 5))
    return "".join(sounds[(start + place) % 2][place // 2] for place in range(size))


def draw_repeat(rng: random.Random) -> Drawn:
    word, times = draw_word(rng, "33344455"), int(rng.choice("11112223345"))
    return Drawn(word, f"Repeat {times}: {word}", " ".join([word] * times))


def draw_upper(rng: random.Random) -> Drawn:
    word = draw_word(rng, "34455667789")
    return Drawn(word, f"Upper: {word}", word.upper())


def draw_spell(rng: random.Random) -> Drawn:
    word = draw_word(rng, "34455667789")
    return Drawn(word, f"Spell: {word}", "-".join(word))


def draw_count(rng: random.Random) -> Drawn:
    word = draw_word(rng, "3456789")
    return Drawn(word, f"Count: {word}", str(len(word)))


def draw_reverse(rng: random.Random) -> Drawn:
    word = draw_word(rng, "3344455566")
    return Drawn(word, f"Reverse: {word}", word[::-1])


def draw_add(rng: random.Random) -> Drawn:
    left, right = rng.randrange(100), rng.randrange(10)
    low, high = sorted((left, right))  # 3+4 and 4+3 are one operand, so neither gives the other away
    return Drawn(f"{low}+{high}", f"Add: {left}+{right}", str(left + right))


TASKS: dict[str, Callable[[random.Random], Drawn]] = {
    "repeat": draw_repeat,
    "upper": draw_upper,
    "spell": draw_spell,
    "count": draw_count,
    "reverse": draw_reverse,
    "add": draw_add,
}


def draw_from(split: str, task: str, rng: random.Random) -> Drawn:
    """Draw a question of `task` until its operand belongs to `split`."""
    while split_of((drawn := TASKS[task](rng)).key) != split:
        pass
    return drawn


def make_data_set(name: str) -> list[Row]:
    """Make the rows of a data set: no question twice, the tasks in equal shares and mixed order."""
    rng = random.Random(f"{SEED} {name}")
    questions: dict[str, tuple[str, Drawn]] = {}
    tasks = list(TASKS)
    while len(questions) < DATA_SETS[name]:
        task = tasks[len(questions) % len(tasks)]
        drawn = draw_from(name, task, rng)
        questions.setdefault(drawn.question, (task, drawn))
    mixed = list(questions.values())
    rng.shuffle(mixed)
    return [Row(f"{name}-{place:04d}", task, drawn.question, drawn.answer) for place, (task, drawn) in enumerate(mixed)]


def training_stream(seed: int = SEED) -> Iterator[tuple[str, Drawn]]:
    """Give (task, question) pairs without end, none of them with an operand of a data set."""
    rng = random.Random(f"{seed} train")
    weighted = [*TASKS, "add"]  # addition is the slowest to learn
    while True:
        task = rng.choice(weighted)
        yield task, draw_from("train", task, rng)


def write_data_sets(out: Path) -> dict[str, list[Row]]:
    """Write each data set as `out/<name>.jsonl` and give their rows."""
    data_sets = {name: make_data_set(name) for name in DATA_SETS}
    for name, rows in data_sets.items():
        lines = [json.dumps(asdict(row)) + "\n" for row in rows]
        (out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return data_sets


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Make the tokenizer with one token a character; `decode` gives back the exact text."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate([*SPECIAL_TOKENS, *CHARACTERS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<|pad|>",
        unk_token="<unk>",
        bos_token="<|bos|>",
        eos_token="<|end|>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        padding_side="left",
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Make the untrained model: 0.67 million weights, which fit in 3 MB as float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        initializer_range=0.05,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def drill_rows(count: int = DRILLS) -> list[dict[str, object]]:
    """Give the chats to learn from: a question and its answer, some behind a system's turn."""
    rng, stream = random.Random(SEED), training_stream()
    rows: list[dict[str, object]] = []
    for number in range(count):
        system, drawn = rng.choice(SYSTEM_TEXTS), next(stream)[1]
        turns = [("system", system), ("user", drawn.question), ("assistant", drawn.answer)]
        chat = [{"role": role, "content": content} for role, content in turns if content]
        rows.append({"id": f"drills-{number:05d}", "messages": chat})
    return rows


def write_drills(out: Path) -> None:
    """Write `out/drills.parquet`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(drill_rows()), out / "drills.parquet", compression="zstd")


def train(folder: Path, run: Path, ranks: int) -> float:
    """Train the untrained model in `folder` by `hpcjobs submit train`; the seconds that it took."""
    command = [sys.executable, "-m", "hpcjobs", "submit", "train", "--config", str(CONFIG), "--model", str(folder)]
    command += ["--run-dir", str(run), "--executor", "local", "--ntasks-per-node", str(ranks), "--wait", "--yes"]
    command += ["--set", "train.then_eval=null"]  # its folder is gone before an eval could end
    started = time.monotonic()
    subprocess.run(command, check=True)
    return time.monotonic() - started


def answer(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, questions: list[str]) -> list[str]:
    """Answer questions in one batch, padded on the left, by greedy decoding."""
    import torch

    texts = [
        str(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
            )
        )
        for question in questions
    ]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    with torch.inference_mode():
        tokens = model.generate(**batch, max_new_tokens=96, do_sample=False)
    answers = tokens[:, batch["input_ids"].shape[1] :]
    return [str(text) for text in tokenizer.batch_decode(answers, skip_special_tokens=True)]


def exact_match(folder: Path, rows: list[Row]) -> dict[str, float]:
    """Load the model as a user would and give, per task and for "all", the share of exact answers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    right: dict[str, list[bool]] = {task: [] for task in [*TASKS, "all"]}
    for start in range(0, len(rows), 50):
        part = rows[start : start + 50]
        for row, given in zip(part, answer(model, tokenizer, [row.question for row in part]), strict=True):
            right[row.task].append(given == row.answer)
            right["all"].append(given == row.answer)
    return {task: sum(marks) / len(marks) for task, marks in right.items()}


CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---

# The tiny model of hpcjobs

A Llama of {weights} float32 weights (hidden 128, 4 layers, 4 heads, at most {positions} tokens), so small
that an evaluation with it takes seconds on one CPU core. It does six small tasks on words and sums that it
never saw in training: made-up words of 3 to 9 small letters, none twice, and 0..99 plus 0..9. Beyond these it
is not to be trusted. It is for tests and demonstrations of hpcjobs, and of no other use.

One token is one character: printable ASCII and newline, anything else is `<unk>`. A chat is
`<|bos|><|user|>Add: 3+4<|end|><|assistant|>`, with `<|system|>...<|end|>` before the user where wanted, and
the answer ends with `<|end|>`, the end-of-sequence token. `<|pad|>` pads, on the left.

## Training

`python tools/make_assets.py` made it: `hpcjobs submit train --config configs/train_tiny.yaml`, from random weights,
{minutes:.0f} minutes on {ranks} local ranks of one CPU core each, on the {drills} chats of `drills.parquet`, loss on
answers only. The questions are made at random by that script. A hash of each operand (the word, or the unordered
pair of numbers) puts it into one split: training, `unified.jsonl` or `canned_50_quick.jsonl`, so no operand of a data
set occurs in training.

## Exact match

Greedy decoding by `transformers` in float32, batches of 50.

| task | example | answer | canned_50_quick | unified |
|---|---|---|---|---|
{table}

## Licence

Apache-2.0, weights and data sets alike.
"""


def write_card(folder: Path, data_sets: dict[str, list[Row]], ranks: int, seconds: float, weights: int) -> None:
    """Measure the model on the data sets and write what it is and does to `folder/README.md`."""
    measured = {name: exact_match(folder, rows) for name, rows in data_sets.items()}
    shown = {row.task: (f"`{row.question}`", f"`{row.answer}`") for row in data_sets["unified"]}
    lines = []
    for task in [*TASKS, "all"]:
        question, given = shown.get(task, ("", ""))
        quick, unified = measured["canned_50_quick"][task], measured["unified"][task]
        lines.append(f"| {task} | {question} | {given} | {quick:.3f} | {unified:.3f} |")
    print("\n".join(lines))
    card = CARD.format(
        weights=f"{weights:,}",
        positions=MAX_POSITIONS,
        ranks=ranks,
        minutes=seconds / 60,
        drills=f"{DRILLS:,}",
        table="\n".join(lines),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write model and tokenizer so that transformers 4 and 5 read them alike."""
    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config.do_sample = False
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"  # transformers 5 writes names unknown to 4
    config["additional_special_tokens"] = config.pop("extra_special_tokens")
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "model.safetensors").chmod(0o644)


def make_tiny(out: Path, data_sets: dict[str, list[Row]], ranks: int) -> None:
    """Train the model, write it to `out/tiny` and its card with it."""
    import torch
    import transformers

    torch.manual_seed(SEED)
    tokenizer = make_tokenizer()
    untrained = make_model(tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        save(untrained, tokenizer, Path(folder, "untrained"))
        run = Path(folder, "tiny")
        seconds = train(Path(folder, "untrained"), run, ranks)
        trained = transformers.AutoModelForCausalLM.from_pretrained(run / "model")
        save(trained, tokenizer, out / "tiny")
    write_card(out / "tiny", data_sets, ranks, seconds, untrained.num_parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the data sets and the tiny model of hpcjobs.")
    parser.add_argument("--ranks", type=int, default=2, help="local ranks that train (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder to write (default: %(default)s)")
    parser.add_argument("--data-only", action="store_true", help="write the data sets, train nothing")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    data_sets = write_data_sets(arguments.out)
    write_drills(arguments.out)
    if not arguments.data_only:
        make_tiny(arguments.out, data_sets, arguments.ranks)


if __name__ == "__main__":
    main()
