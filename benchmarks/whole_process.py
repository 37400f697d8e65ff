"""Ten usual tasks as whole processes, against lm-evaluation-harness: from the typed command to the scores.

    python tools/fetch_real.py real
    python -m benchmarks.whole_process --real real [--rows 48] [--tasks arc_easy,gsm8k] [--batch 8] [--runs 1]

Both sides run the same task YAMLs on the same rows with the same model on one rank, one after the other, in processes
of their own: imports, planning, loading, the model's work and metrics all count. Scores must be equal.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

CHOICE = {"output_type": "multiple_choice", "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}]}
ARC = {"doc_to_text": "Question: {{question}}\nAnswer:", "doc_to_choice": "{{choices}}", "doc_to_target": "{{gold}}"}
HELLASWAG = {"doc_to_text": "{{query}}", "doc_to_choice": "{{choices}}", "doc_to_target": "{{gold}}"}
MMLU = {
    "doc_to_text": "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\n"
    "Answer:",
    "doc_to_choice": ["A", "B", "C", "D"], "doc_to_target": "{{gold}}",
}  # fmt: skip
EXACT = {"metric": "exact_match", "ignore_case": True, "ignore_punctuation": True}
# By name: the file of rows, and the task. Examples are drawn at random, other ones for each question.
TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "arc_easy": ("arc_easy", CHOICE | ARC),
    "arc_easy_5": ("arc_easy", CHOICE | ARC | {"num_fewshot": 5}),
    "hellaswag": ("hellaswag", CHOICE | HELLASWAG),
    "hellaswag_3": ("hellaswag", CHOICE | HELLASWAG | {"num_fewshot": 3}),
    "mmlu": ("mmlu", CHOICE | MMLU),
    "mmlu_5": ("mmlu", CHOICE | MMLU | {"num_fewshot": 5}),
    "gsm8k_2": ("gsm8k", {
        "output_type": "generate_until", "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{answer}}", "num_fewshot": 2,
        "generation_kwargs": {"until": ["Question:"], "do_sample": False, "max_gen_toks": 128},
        "metric_list": [EXACT],
        "filter_list": [{"name": "flexible", "filter": [
            {"function": "regex", "regex_pattern": "(-?[$0-9.,]{2,})|(-?[0-9]+)", "group_select": -1},
            {"function": "take_first"},
        ]}],
    }),
    "squad": ("squad", {
        "output_type": "generate_until", "doc_to_text": "{{context}}\nQuestion: {{question}}\nAnswer:",
        "doc_to_target": "{{answers[0]}}", "metric_list": [EXACT],
        "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": 32},
    }),
    "last_word": ("squad", {
        "output_type": "loglikelihood", "doc_to_text": "{{context.split(' ')[:-1] | join(' ')}}",
        "doc_to_target": "{{' ' + context.split(' ')[-1]}}",
        "metric_list": [{"metric": "acc"}, {"metric": "perplexity"}],
    }),
    "word_perplexity": ("squad", {
        "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{context}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    }),
}  # fmt: skip


def main() -> int:
    """Print a line for each task; 1 if a score differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--batch", default="8", help="lm_eval's --batch_size")
    parser.add_argument("--runs", type=int, default=1, help="of each side; the fastest counts")
    chosen = parser.parse_args()
    different = 0
    print(f"{'task':<18} {'lm_eval':>8} {'hpcjobs':>8} {'ratio':>6}  scores")
    with tempfile.TemporaryDirectory() as folder:
        tasks = _written(Path(folder, "tasks"), chosen.real.absolute(), chosen.rows)
        for name in chosen.tasks.split(","):
            theirs, ours = float("inf"), float("inf")
            for run in range(chosen.runs):
                seconds, wanted = lm_eval(name, tasks, chosen.real / MODEL, chosen.batch)
                theirs = min(theirs, seconds)
                seconds, found = hpcjobs(name, tasks, chosen.real / MODEL, f"{name}-{run}")
                ours = min(ours, seconds)
            same = wanted.keys() == found.keys() and all(_close(wanted[key], found[key]) for key in wanted)
            different += not same
            said = "equal" if same else f"lm_eval {wanted}, hpcjobs {found}"
            scores = ", ".join(f"{key.partition(',')[0]} {value:.4g}" for key, value in found.items())
            print(f"{name:<18} {theirs:>6.1f} s {ours:>6.1f} s {theirs / ours:>6.2f}  {said}: {scores}", flush=True)
    return min(1, different)


MODEL = "SmolLM2-135M-Instruct"


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= 1e-4 * max(1.0, abs(one))


def _written(folder: Path, real: Path, count: int) -> Path:
    """A folder of the task YAMLs and their rows; examples come from rows behind those that are asked."""
    folder.mkdir()
    for name, (data, task) in TASKS.items():
        rows = [line for line in (real / f"{data}.jsonl").read_text("utf-8").split("\n") if line]
        step = max(1, (len(rows) - 100) // count)
        (folder / f"{name}.jsonl").write_text("\n".join(rows[::step][:count]) + "\n", encoding="utf-8")
        (folder / f"{name}.shown.jsonl").write_text("\n".join(rows[-100:]) + "\n", encoding="utf-8")
        files = {"test": str(folder / f"{name}.jsonl"), "train": str(folder / f"{name}.shown.jsonl")}
        own = {"task": f"whole_{name}", "dataset_path": "json", "dataset_kwargs": {"data_files": files}}
        splits = {"test_split": "test", "fewshot_split": "train", "training_split": "train"}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(own | splits | task))
    return folder


def _timed(command: list[str], cwd: Path) -> float:
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    began = time.monotonic()
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return time.monotonic() - began


def lm_eval(name: str, tasks: Path, model: Path, batch: str) -> tuple[float, dict[str, float]]:
    """Seconds and scores of `lm_eval run`."""
    out = tasks / f"lm_eval-{name}"
    words = ["run", "--model", "hf", "--model_args", f"pretrained={model.absolute()},dtype=float32", "--device", "cpu"]
    words += ["--tasks", f"whole_{name}", "--include_path", str(tasks), "--batch_size", batch]
    words += ["--output_path", str(out)]
    seconds = _timed([sys.executable, "-m", "lm_eval", *words], tasks)
    newest = max(out.rglob("results*.json"), key=lambda path: path.stat().st_mtime_ns)
    return seconds, _numbers(json.loads(newest.read_text())["results"][f"whole_{name}"])


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in values.items() if "," in key and "_stderr" not in key}


def hpcjobs(name: str, tasks: Path, model: Path, run: str) -> tuple[float, dict[str, float]]:
    """Seconds and scores of `hpcjobs submit eval --wait`."""
    sets = {
        "task.type": "lm_eval", "task.name": f"whole_{name}", "task.include_path": str(tasks), "model.dtype": "float32",
        "data.name": "",
    }  # fmt: skip
    config = tasks / f"{name}.config.yaml"
    sections: dict[str, dict[str, str]] = {}
    for key, value in sets.items():
        section, _, last = key.partition(".")
        sections.setdefault(section, {})[last] = value
    config.write_text(yaml.safe_dump(sections | {"cluster": {"executor": "local"}}))
    words = ["submit", "eval", "--config", str(config), "--model", str(model.absolute()), "--wait", "--yes", "--json"]
    seconds = _timed([sys.executable, "-m", "hpcjobs", *words, "--run-dir", str(tasks.with_name(run))], tasks)
    metrics = json.loads((tasks.with_name(run) / "metrics.json").read_text())["metrics"]
    return seconds, {key: metric["value"] for key, metric in metrics.items()}


if __name__ == "__main__":
    sys.exit(main())
