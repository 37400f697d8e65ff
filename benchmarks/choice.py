"""Multiple choice against lm-evaluation-harness: the same rows, prompts and model; equal scores, and how much sooner.

    python tools/fetch_real.py real
    python benchmarks/choice.py --real real [--rows 64] [--tasks hellaswag,arc_easy,mmlu] [--batches 1,8,16]

Both sides score with one loaded model in one process, one after the other; timed is what lies between prompts and
log-likelihoods, tokenisation included. lm-evaluation-harness is given several batch sizes, and its fastest counts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hpcjobs.config import FewShotConfig, TaskConfig
from hpcjobs.metrics import Judge
from hpcjobs.requests import Completion
from hpcjobs.tasks.few_shot import Pool, TableRows
from hpcjobs.tasks.prompts import Prompts

Rows = Sequence[dict[str, Any]]
METRICS = ("acc", "acc_norm")


@dataclass(frozen=True)
class Setting:
    """One task on both sides; templates are jinja2 and the same for both, but for what each calls its keys."""

    data: str
    shots: int
    prompt: str
    choices: str
    target: str
    description: str = ""
    shots_data: str | None = None
    same: str | None = None


LETTERS = (
    "{{ question.strip() }}\nA. {{ choices[0] }}\nB. {{ choices[1] }}\n"
    "C. {{ choices[2] }}\nD. {{ choices[3] }}\nAnswer:"
)
SETTINGS = {
    "hellaswag": Setting("hellaswag", 5, "{{ query }}", "{{ choices }}", "{{ gold }}"),
    "arc_easy": Setting("arc_easy", 0, "Question: {{ question }}\nAnswer:", "{{ choices }}", "{{ gold }}"),
    "mmlu": Setting(
        "mmlu", 5, LETTERS, "{{ ['A', 'B', 'C', 'D'] }}", "{{ gold }}",
        "The following are multiple choice questions (with answers) about {{ subject }}.\n\n", "mmlu_dev", "subject",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Side:
    """What one side came to: seconds, log-likelihoods by row and option, and the values of the metrics."""

    seconds: float
    logprobs: list[list[float]]
    values: dict[str, float]


def rows_of(setting: Setting, real: Path, count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(rows to score, rows to show as examples). Where a set has no rows of its own to show, its first ones are."""
    rows = [json.loads(line) for line in (real / f"{setting.data}.jsonl").read_text("utf-8").split("\n") if line]
    if setting.shots_data:
        shots = (real / f"{setting.shots_data}.jsonl").read_text("utf-8").split("\n")
        subjects = sorted({row["subject"] for row in rows})[:: max(1, len({row["subject"] for row in rows}) // 4)]
        chosen = [row for n in range(len(rows)) for row in [rows[n]] if row["subject"] in subjects]
        step = max(1, len(chosen) // count)
        return chosen[::step][:count], [json.loads(line) for line in shots if line]
    return rows[setting.shots : setting.shots + count], rows[: setting.shots]


def ours(setting: Setting, rows: Rows, shots: Rows, engine: Any) -> Side:
    import pyarrow as pa

    few = FewShotConfig(k=setting.shots, same=setting.same, data="shots")
    task = TaskConfig(
        type="choice", prompt=setting.prompt, choices=setting.choices, target=setting.target, few_shot=few,
        description=setting.description or None, metrics=METRICS,
    )  # fmt: skip
    pool = Pool(few, TableRows(pa.Table.from_pylist(list(shots))), own=False) if setting.shots else None
    prompts, judge = Prompts(task, list(rows[0]), pool), Judge(task)
    numbered = [row | {"index": n, "id": str(n)} for n, row in enumerate(rows)]
    requests = [prompts.request(row, 0) for row in numbered]
    started = time.perf_counter()
    done: list[Completion] = sorted(engine.stream(iter(requests)), key=lambda c: c.index)
    seconds = time.perf_counter() - started
    values = dict.fromkeys(METRICS, 0.0)
    for completion, row in zip(done, numbered, strict=True):
        assert completion.error is None, completion.error
        for name, score in judge.judge(completion, prompts.target(row), row).items():
            values[name] += score.value / len(rows)
    return Side(seconds, [list(c.likelihood.logprobs) for c in done if c.likelihood], values)


def theirs(setting: Setting, rows: Rows, shots: Rows, lm: Any) -> Side:
    import lm_eval
    from lm_eval.tasks import TaskManager

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        groups = sorted({row.get(setting.same or "", "") for row in rows})
        logprobs: list[list[float]] = [[] for _ in rows]
        values, seconds = dict.fromkeys(METRICS, 0.0), 0.0
        for number, group in enumerate(groups):  # lm-evaluation-harness has a task for each of MMLU's subjects
            own = [n for n, row in enumerate(rows) if row.get(setting.same or "", "") == group]
            examples = [row for row in shots if row.get(setting.same or "", "") == group]
            task = write_task(folder, f"t{number}", setting, [rows[n] for n in own], examples, group)
            lm.seconds = 0.0
            found = lm_eval.simple_evaluate(
                model=lm, tasks=[task], task_manager=TaskManager(include_path=name, include_defaults=False),
                num_fewshot=setting.shots, bootstrap_iters=0, verbosity="ERROR",
            )  # fmt: skip
            seconds += lm.seconds
            for sample in found["samples"][task]:
                logprobs[own[sample["doc_id"]]] = [float(one[0][0]) for one in sample["resps"]]
            for metric in METRICS:
                values[metric] += found["results"][task][f"{metric},none"] * len(own) / len(rows)
    return Side(seconds, logprobs, values)


def write_task(folder: Path, name: str, setting: Setting, rows: Rows, shots: Rows, group: str) -> str:
    """A task YAML of lm-evaluation-harness with its data beside it; its name."""
    files = {"test": rows, "shots": shots or rows[:1]}
    for split, lines in files.items():
        (folder / f"{name}-{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    task: dict[str, Any] = {
        "task": name, "dataset_path": "json", "output_type": "multiple_choice", "test_split": "test",
        "dataset_kwargs": {"data_files": {split: str(folder / f"{name}-{split}.jsonl") for split in files}},
        "fewshot_split": "shots", "fewshot_config": {"sampler": "first_n"}, "doc_to_text": setting.prompt,
        "doc_to_target": setting.target, "doc_to_choice": setting.choices,
        "description": setting.description.replace("{{ subject }}", group),
        "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in METRICS],
    }  # fmt: skip
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task, sort_keys=False))
    return name


def timed_lm(model: Any, tokenizer: Any, batch: int) -> Any:
    """lm-evaluation-harness' own hf model around a loaded one, which notes how long its scoring takes."""
    from lm_eval.models.huggingface import HFLM

    class Timed(HFLM):  # type: ignore[misc]
        seconds = 0.0

        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
            started = time.perf_counter()
            found = super().loglikelihood(requests, disable_tqdm=True)
            self.seconds += time.perf_counter() - started
            return found

    return Timed(pretrained=model, tokenizer=tokenizer, batch_size=batch)


def close(ours: dict[str, float], theirs: dict[str, float]) -> bool:
    """Equal but for the order of sums: one row more or less makes a difference of at least 1/rows."""
    return all(abs(ours[name] - theirs[name]) < 1e-9 for name in METRICS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True, help="the folder of tools/fetch_real.py")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--tasks", default=",".join(SETTINGS))
    parser.add_argument("--batches", default="1,8,16", help="lm-evaluation-harness' batch sizes")
    args = parser.parse_args()

    from hpcjobs.engines.loader import load_model
    from hpcjobs.engines.scoring.engine import ScoringEngine

    model, tokenizer = load_model(str(args.real / "SmolLM2-135M-Instruct"))
    for name in args.tasks.split(","):
        setting = SETTINGS[name]
        rows, shots = rows_of(setting, args.real, args.rows)
        our = ours(setting, rows, shots, ScoringEngine(model, tokenizer))
        sides = {
            int(batch): theirs(setting, rows, shots, timed_lm(model, tokenizer, int(batch)))
            for batch in args.batches.split(",")
        }
        batch, their = min(sides.items(), key=lambda item: item[1].seconds)
        both = zip(our.logprobs, their.logprobs, strict=True)
        worst = max(abs(a - b) for x, y in both for a, b in zip(x, y, strict=True))
        print(f"{name}: {len(rows)} rows, {setting.shots}-shot, {model.dtype}")
        print("  lm_eval " + "  ".join(f"batch {b}: {side.seconds:.1f} s" for b, side in sides.items()))
        print(f"  hpcjobs {our.seconds:.1f} s: {their.seconds / our.seconds:.2f} times sooner than batch {batch}")
        print(f"  largest difference of a log-likelihood {worst:.2e}; equal scores: {close(our.values, their.values)}")
        print(f"  hpcjobs {our.values}   lm_eval {their.values}", flush=True)


if __name__ == "__main__":
    main()
