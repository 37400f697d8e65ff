"""Options of lm_eval: of a run, and of a task's YAML file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.reference.lm_eval_library.bench import Case

_WRITES: dict[str, Any] = {
    "dataset_path": "mandarjoshi/trivia_qa",
    "dataset_name": "rc.nocontext",
    "output_type": "generate_until",
    "training_split": "train",
    "validation_split": "validation",
    "doc_to_text": "Question: {{question}}?\nAnswer:",
    "doc_to_target": "{{answer.value[:12]}}",
    "generation_kwargs": {"until": ["\n", ".", ","], "max_gen_toks": 12, "do_sample": False},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
_PICKS: dict[str, Any] = {
    "dataset_path": "allenai/ai2_arc",
    "dataset_name": "ARC-Easy",
    "output_type": "multiple_choice",
    "training_split": "train",
    "test_split": "test",
    "doc_to_text": "Q: {{question}}\nA:",
    "doc_to_target": "{{choices.label.index(answerKey)}}",
    "doc_to_choice": "{{choices.text}}",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}


def _metrics(*names: str, **options: Any) -> dict[str, Any]:
    return {"metric_list": [{"metric": name, "higher_is_better": True} | options for name in names]}


def _filters(*steps: Mapping[str, Any]) -> dict[str, Any]:
    return {"filter_list": [{"name": "own", "filter": [dict(step) for step in steps]}]}


def _take(*steps: Mapping[str, Any]) -> dict[str, Any]:
    return _filters(*steps, {"function": "take_first"})


# Keys of a task that writes answers, by what they are about.
WRITES: Mapping[str, Mapping[str, Any]] = {
    "description": {"description": "Be {{question[:4]}}. "},
    "gen_prefix": {"gen_prefix": "It is"},
    "target_delimiter": {"target_delimiter": " => ", "num_fewshot": 2},
    "fewshot_delimiter": {"fewshot_delimiter": "\n###\n", "num_fewshot": 2},
    "num_fewshot": {"num_fewshot": 3},
    "fewshot_split": {"fewshot_split": "validation", "num_fewshot": 2},
    "fewshot_config first_n": {"fewshot_config": {"sampler": "first_n"}, "num_fewshot": 2},
    "fewshot_config samples": {
        "fewshot_config": {"sampler": "first_n", "samples": [{"question": "so", "answer": {"value": "yes"}}]},
        "num_fewshot": 1,
    },
    "fewshot_config doc_to_text": {"fewshot_config": {"doc_to_text": "Once: {{question}}\nA:"}, "num_fewshot": 1},
    "repeats and majority_vote": {"repeats": 3} | _take({"function": "majority_vote"}),
    "filter regex": _take(
        {"function": "regex", "regex_pattern": "([0-9])([a-z]*)", "group_select": -1, "fallback": "none"}
    ),
    "filter regex_pos": _take({"function": "regex", "regex_pattern": "([0-9]+)"}),
    "filter remove_whitespace": _take({"function": "remove_whitespace"}),
    "filter lowercase": _take({"function": "lowercase"}) | {"doc_to_target": "{{answer.value[:12]|lower}}"},
    "filter uppercase": _take({"function": "uppercase"}) | {"doc_to_target": "{{answer.value[:12]|upper}}"},
    "filter map": _take({"function": "map", "mapping_dict": {"5": "five"}, "default_value": "other"}),
    "two filters": {
        "filter_list": [
            {"name": "whole", "filter": [{"function": "take_first"}]},
            {
                "name": "digits",
                "filter": [{"function": "regex", "regex_pattern": "([0-9]+)"}, {"function": "take_first"}],
            },
        ]
    },
    "ignore_case": _metrics("exact_match", ignore_case=True) | {"doc_to_target": "{{answer.value[:12]|upper}}"},
    "ignore_punctuation": _metrics("exact_match", ignore_punctuation=True)
    | {"doc_to_target": "{{answer.value[:12]}}!"},
    "ignore_numbers": _metrics("exact_match", ignore_numbers=True),
    "regexes_to_ignore": _metrics("exact_match", regexes_to_ignore=["[a-z]"]),
    "several targets": {"doc_to_target": "{{[answer.value[:12], 'x']}}"},
    "bleu, chrf, ter": _metrics("bleu", "chrf", "ter"),
    "repetition_penalty": {"generation_kwargs": {"until": ["\n"], "max_gen_toks": 12, "repetition_penalty": 1.3}},
    "until as a text": {"generation_kwargs": {"until": "5", "max_gen_toks": 12}},
    "process_results": {
        "process_results": "!function code.results",
        "metric_list": [
            {"metric": "half", "aggregation": "mean", "higher_is_better": True},
            {"metric": "most", "aggregation": "!function code.most", "higher_is_better": True},
        ],
    },
    "process_docs": {"process_docs": "!function code.docs"},
    "doc_to_text as a function": {"doc_to_text": "!function code.text"},
    "should_decontaminate": {"should_decontaminate": True, "doc_to_decontamination_query": "question"},
}
# The same of a task that chooses.
PICKS: Mapping[str, Mapping[str, Any]] = {
    "acc_norm, acc_bytes": _metrics("acc_norm", "acc_bytes"),
    "acc_mutual_info": _metrics("acc_mutual_info"),
    "brier_score": {
        "metric_list": [{"metric": "brier_score", "aggregation": "brier_score", "higher_is_better": False}]
    },
    "exact_match of options": _metrics("exact_match"),
    "target as a text": {"doc_to_target": "{{choices.text[0]}}"},
    "choices as templates": {"doc_to_choice": ["{{choices.text[0]}}", "{{choices.text[1]}}"], "doc_to_target": 1},
    "several inputs": {
        "doc_to_text": "{{choices.label.index(answerKey)}}",
        "doc_to_choice": "{{choices.text}}",
        "doc_to_target": "{{question}}",
    },
    "no delimiter": {"target_delimiter": ""},
    "loglikelihood": {
        "output_type": "loglikelihood",
        "doc_to_target": " {{choices.text[0]}}",
        "doc_to_choice": None,
        "metric_list": [
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        ],
    },
    "loglikelihood_rolling": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}}",
        "doc_to_choice": None,
        "metric_list": [{"metric": "byte_perplexity"}, {"metric": "bits_per_byte"}],
    },
}
CODE = """
def results(doc, results):
    return {"half": len(results[0]) / 2, "most": (results[0], len(doc["question"]))}


def most(items):
    return max(len(answer) * length for answer, length in items)


def docs(rows):
    return rows.filter(lambda row: "a" in row["question"]).map(lambda row: {"question": row["question"].title()})


def text(doc):
    return f"Say {doc['question']}:"
"""
_REFUSED: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "beam search": (
        {"generation_kwargs": {"until": ["."], "num_beams": 4}},
        "num_beams: 4 is nothing that hpcjobs' engines do",
    ),
    "typical_p": (
        {"generation_kwargs": {"until": ["."], "do_sample": True, "temperature": 0.7, "typical_p": 0.9}},
        "typical_p: 0.9 is nothing that hpcjobs' engines do",
    ),
    "unsafe_code": ({"unsafe_code": True}, "runs code that the model writes"),
    "images": ({"doc_to_image": "question"}, "asks about images or sound"),
}


def _written(folder: Path, name: str, values: Mapping[str, Any]) -> None:
    text = json.dumps({"task": name} | {key: value for key, value in values.items() if value is not None}, indent=1)
    for function in ("results", "most", "docs", "text"):
        text = text.replace(f'"!function code.{function}"', f"!function code.{function}")
    (folder / f"{name}.yaml").write_text(text)


def of_tasks(folder: Path) -> list[Case]:
    """Cases for keys of YAML files, which are written to the new folder `folder`."""
    folder.mkdir()
    (folder / "code.py").write_text(CODE)
    found = []
    for kind, base, all_keys in (("writes", _WRITES, WRITES), ("picks", _PICKS, PICKS)):
        for number, (what, keys) in enumerate(all_keys.items()):
            _written(folder, f"{kind}{number}", base | dict(keys))
            found.append(Case(task=f"{kind}{number}", what=what, include=folder))
    for number, (what, (keys, said)) in enumerate(_REFUSED.items()):
        _written(folder, f"refused{number}", _WRITES | dict(keys))
        found.append(Case(task=f"refused{number}", what=what, include=folder, refused=said))
    for name, content in _groups().items():
        (folder / f"{name}.yaml").write_text(json.dumps(content))
        refused = "these need engines of their own" if name == "mixed" else ""
        found.append(Case(task=name, what="as a group", include=folder, refused=refused))
    path = str(folder / "writes0.yaml")
    return [*found, Case(task=path, what="by the path of its file", include=folder)]


def _groups() -> dict[str, dict[str, Any]]:
    size = {"aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}]}
    flat = {"aggregate_metric_list": [{"metric": "acc", "weight_by_size": False}]}
    return {
        "sized": {"group": "sized", "task": ["picks5", "picks7"]} | size,
        "even": {"group": "even", "task": ["picks5", "picks7"]} | flat,
        "nested": {"group": "nested", "task": ["even", "picks4"]} | size,
        "mixed": {"group": "mixed", "task": ["picks5", "writes0"]},
    }


def of_runs() -> list[Case]:
    """Cases for options of a run."""
    chat, turn = {"chat_template": True}, {"apply_chat_template": True}
    system, said = {"description": "Be brief."}, {"system_instruction": "Be brief."}
    two, both = {"few_shot": {"k": 2}}, {"num_fewshot": 2}
    short, least = {"generation": {"max_new_tokens": 9}}, {"gen_kwargs": {"max_gen_toks": 9}}

    def case(task: str, what: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], section: str = "task") -> Case:
        return Case(task=task, what=what, ours={section: ours}, theirs=theirs)

    return [
        case("arc_easy", "num_fewshot", two, both),
        case("arc_easy", "fewshot seed", {"few_shot": {"k": 2, "seed": 7}}, both | {"fewshot_random_seed": 7}),
        case("mmlu_anatomy", "first examples", two, both),
        case("truthfulqa_mc1", "num_fewshot of a task with 0", two, both),
        case("hellaswag", "limit", {"max_samples": 3}, {"limit": 3}, "data"),
        case("piqa", "limit beyond the rows", {"max_samples": 99}, {"limit": 99}, "data"),
        case("arc_easy", "samples", {"samples": {"arc_easy": [1, 4]}}, {"samples": {"arc_easy": [1, 4]}}),
        case("triviaqa", "predict_only", {"predict_only": True} | short, {"predict_only": True} | least),
        case("triviaqa", "system_instruction", system | short, said | least),
        case("triviaqa", "apply_chat_template", chat | short, turn | least),
        case("triviaqa", "chat template and system", chat | system | short, turn | said | least),
        case("triviaqa", "chat template and examples", chat | two | short, turn | both | least),
        case("arc_easy", "chat template", chat, turn),
        case("arc_easy", "chat template, system, examples", chat | system | two, turn | said | both),
        case("nq_open", "max_gen_toks", short, least),
        case("nq_open", "until", {"generation": {"stop": ["5"]}}, {"gen_kwargs": {"until": ["5"]}}),
        case(
            "nq_open", "until of several", {"generation": {"stop": ["w5", "i"]}}, {"gen_kwargs": {"until": ["w5", "i"]}}
        ),
        case("nq_open", "temperature 0", {"generation": {"temperature": 0}}, {"gen_kwargs": {"temperature": 0}}),
        case("arc_easy", "one metric", {"metrics": ["acc_norm,none"]}, {}),
        case("ai2_arc", "as a tag", {}, {}),
    ]
