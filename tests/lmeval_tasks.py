"""A folder of lm_eval tasks on local rows, one of each kind, and what lm_eval alone makes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpcjobs.engines.dummy import DummyEngine
from hpcjobs.requests import Completion, Pair, Request
from hpcjobs.tasks.lmeval.prompting import generation_of

WORDS = ["abu", "cela", "dora", "efi", "gamo", "hiku", "jelo", "kani", "luma", "mopi", "nesu", "oti"]

HEAD = """
dataset_path: json
dataset_kwargs: {data_files: {train: FOLDER/train.jsonl, test: FOLDER/test.jsonl}}
training_split: train
test_split: test
"""
TASKS = {
    "pick": """
task: pick
output_type: multiple_choice
fewshot_split: train
num_fewshot: 2
doc_to_text: "Reverse: {{word}}\\nAnswer:"
doc_to_choice: options
doc_to_target: right
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
  - {metric: acc_mutual_info, aggregation: mean, higher_is_better: true}
  - {metric: brier_score, aggregation: brier_score, higher_is_better: false}
  - {metric: mcc, aggregation: matthews_corrcoef, higher_is_better: true}
""",
    "spell": """
task: spell
output_type: generate_until
process_docs: !function utils.without_short
doc_to_text: !function utils.question
doc_to_target: "{{word[::-1]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 12, do_sample: false, temperature: 0.0}
filter_list:
  - {name: strict-match, filter: [{function: regex, regex_pattern: "^([a-z0-9]+)"}, {function: take_first}]}
  - name: flexible-extract
    filter: [{function: regex, regex_pattern: "([a-f])", group_select: -1}, {function: take_first}]
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true}
  - {metric: bleu, aggregation: bleu, higher_is_better: true}
""",
    "blank": """
task: blank
tag: words
output_type: multiple_choice
doc_to_text: right
doc_to_choice: "{{[word ~ ' is', 'not ' ~ word ~ ' is']}}"
doc_to_target: "{{tail}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "read": """
task: read
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{word}} {{tail}} {{word}}"
metric_list:
  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
  - {metric: byte_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
""",
    "vote": """
task: vote
output_type: generate_until
repeats: 3
doc_to_text: "Say {{word}}:"
doc_to_target: "{{word}}"
generation_kwargs: {until: ["."], max_gen_toks: 4, do_sample: true, temperature: 0.7}
process_results: !function utils.shares
metric_list:
  - {metric: share, aggregation: mean, higher_is_better: true}
  - {metric: longest, aggregation: !function utils.longest, higher_is_better: true}
filter_list:
  - {name: all, filter: [{function: take_first_k, k: 3}]}
""",
    "last": """
task: last
tag: words
output_type: loglikelihood
doc_to_text: "{{word}}"
doc_to_target: " {{tail}}"
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "labels": """
task: labels
output_type: multiple_choice
process_docs: !function utils.with_labels
doc_to_text: "{{word}} goes with"
doc_to_choice: !function utils.labels
doc_to_target: !function utils.label
process_results: !function utils.by_label
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: recall, aggregation: !function utils.recall, higher_is_better: true}
""",
    "gaps": """
task: gaps
output_type: multiple_choice
doc_to_text: "{{word}}"
doc_to_choice: options
doc_to_target: right
process_results: !function utils.with_gaps
metric_list:
  - {metric: answered, aggregation: !function utils.of_answered, higher_is_better: true}
  - {metric: place, aggregation: !function utils.most_frequent, higher_is_better: true}
""",
    "faulty": """
task: faulty
output_type: multiple_choice
doc_to_text: "Reverse: {{word}}"
doc_to_choice: options
doc_to_target: right
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: f1, aggregation: f1, higher_is_better: true}
  - {metric: mcc, aggregation: !function utils.no_number, higher_is_better: true}
""",
    "part": """
task: part
output_type: generate_until
doc_to_text: "{{word}}"
doc_to_target: "{{word}}"
generation_kwargs: {until: ["."], max_gen_toks: 4}
process_results: !function utils.of_some
metric_list:
  - {metric: first, aggregation: mean, higher_is_better: true}
  - {metric: pairs, aggregation: !function utils.of_pairs, higher_is_better: false}
""",
    "picky": """
task: picky
output_type: generate_until
doc_to_text: "{{word}}"
doc_to_target: "{{word}}"
generation_kwargs: {until: ["."], max_gen_toks: 4}
metric_list:
  - {metric: !function utils.short, aggregation: mean, higher_is_better: true}
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
  - {metric: bleu, aggregation: bleu, higher_is_better: true}
""",
    "broken": """
task: broken
output_type: generate_until
doc_to_text: "{{word}}"
doc_to_target: "{{word}}"
generation_kwargs: {until: ["."], num_beams: 4}
""",
}
MIXED = """
group: mixed
task: [blank, spell]
"""
GROUP = """
group: both
task: [blank, last]
aggregate_metric_list:
  - {metric: acc, aggregation: mean, weight_by_size: true}
"""
UTILS = """
def without_short(docs):
    return docs.filter(lambda doc: len(doc["word"]) > 3)


def question(doc):
    return f"Reverse: {doc['word']}"


def shares(doc, results):
    answers = results[0]
    if doc["right"] == 2:
        return {"share": sum("a" in one for one in answers) / len(answers)}
    return {"share": sum("a" in one for one in answers) / len(answers), "longest": (answers, {"of": doc["word"]})}


def no_number(items):
    return float("nan")


def of_some(doc, results):
    if doc["right"] == 2:
        raise KeyError(doc["word"])
    return {"first": float(results[0] < "8"), "pairs": (results[0] < "8", doc["word"])}


def short(references, predictions, **options):
    if len(references[0]) > 5:
        raise ValueError("a long one")
    return float(len(references[0]) < 5)


def of_pairs(items):
    return sum(one[0] for one in items) / len(items)


LABELS = []


def with_labels(docs):
    LABELS.extend(sorted(set(docs["tail"])))
    return docs


def labels(doc):
    return LABELS


def label(doc):
    return LABELS.index(doc["tail"])


def by_label(doc, results):
    likelihoods = [one[0] for one in results]
    best = likelihoods.index(max(likelihoods))
    return {"acc": float(best == label(doc)), "recall": (label(doc), best)}


def recall(items):
    found = [[best == gold for gold, best in items if gold == number] for number in range(len(LABELS))]
    return sum(sum(one) / max(1, len(one)) for one in found) / len(LABELS)


def with_gaps(doc, results):
    best = max(range(3), key=lambda number: results[number][0])
    gap = {0: None, 1: float(best == 1), 2: (float(best == 2), doc["word"])}[doc["right"]]
    return {"answered": gap, "place": best}


def of_answered(items):
    there = [one[0] if isinstance(one, tuple) else one for one in items if one is not None]
    return sum(there) / len(there)


def most_frequent(items):
    counts = [0, 0, 0]
    for one in items:
        counts[one] += 1
    return counts.index(max(counts))


def longest(items):
    return max(len(one) + len(more["of"]) for answers, more in items for one in answers)
"""


def write_tasks(folder: Path, rows: int = 30) -> Path:
    """The tasks, their functions and their data in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    data = [_row(number) for number in range(rows + 8)]
    for name, part in (("train", data[:8]), ("test", data[8:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    for name, text in TASKS.items():
        (folder / f"{name}.yaml").write_text(HEAD.replace("FOLDER", str(folder)) + text)
    (folder / "both.yaml").write_text(GROUP)
    (folder / "mixed.yaml").write_text(MIXED)
    (folder / "utils.py").write_text(UTILS)
    return folder


def _row(number: int) -> dict[str, Any]:
    word = WORDS[number % len(WORDS)] + WORDS[number * 5 % 7][: number % 3]
    options = [word[::-1], word, word[1:] + word[0]]
    right = number % 3
    options[0], options[right] = options[right], options[0]
    return {"word": word, "options": options, "right": right, "tail": WORDS[(number + 3) % len(WORDS)]}


def alone(model: Any, name: str, folder: Path, **more: Any) -> dict[str, Any]:
    """What lm_eval alone says: `results`, and `samples` by task."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found: dict[str, Any] = lm_eval.simple_evaluate(model, tasks=[name], task_manager=manager, log_samples=True, **more)
    return found


def dummy_lm() -> Any:
    """An lm_eval model that answers as the dummy engine does."""
    from lm_eval.api.model import LM

    class DummyLM(LM):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._engine = DummyEngine()
            self._said: dict[str, int] = {}

        def _one(self, request: Request) -> Completion:
            return next(self._engine.stream(iter([request])))

        def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            found = []
            for request in requests:
                pair = Pair(*request.args)
                answer = self._one(
                    Request(index=0, id="", prompt=pair.context, task="choice", options=("x",), pairs=(pair,))
                )
                assert answer.likelihood is not None
                found.append((answer.likelihood.logprobs[0], answer.likelihood.greedy[0]))
            return found

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
            answers = [
                self._one(Request(index=0, id="", prompt=request.args[0], task="perplexity")) for request in requests
            ]
            return [answer.likelihood.logprobs[0] for answer in answers if answer.likelihood]

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            found = []
            for request in requests:
                context, arguments = request.args
                generation_of(arguments)
                times = self._said.get(context, 0)  # the clones of a request come one after another
                self._said[context] = times + 1
                answer = self._one(Request(index=0, id="", prompt=context, repeats=times % request.repeats + 1))
                found.append((answer.texts or (answer.text,))[-1])
            return found

    return DummyLM()
