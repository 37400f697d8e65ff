"""The tasks and options that are compared."""

from __future__ import annotations

from pathlib import Path

from tests.reference.lm_eval_library.bench import Case
from tests.reference.lm_eval_library.options import of_runs, of_tasks

SCORED = [
    "arc_easy",
    "arc_challenge",
    "hellaswag",
    "piqa",
    "winogrande",
    "xwinograd_en",
    "openbookqa",
    "sciq",
    "social_iqa",
    "commonsense_qa",
    "mmlu_anatomy",
    "truthfulqa_mc1",
    "truthfulqa_mc2",
    "logiqa",
    "race",
    "swag",
    "headqa_en",
    "mathqa",
    "blimp_adjunct_island",
    "lambada_openai",
    "lambada_openai_cloze_yaml",
    "wikitext",
    "pile_10k",
    "pubmedqa",
    "medmcqa",
    "medqa_4options",
    "xnli_en",
    "xcopa_it",
    "xstorycloze_en",
    "paws_en",
    "asdiv",
    "anli_r1",
    "ethics_cm",
    "crows_pairs_english",
    "toxigen",
    "belebele_eng_Latn",
    "wsc273",
    "gpqa_main_zeroshot",
    "cmmlu_anatomy",
    "ceval-valid_law",
    "kmmlu_law",
    "agieval_sat_en",
    "qa4mre_2011",
    "mutual",
    "mc_taco",
    "simple_cooccurrence_bias",
    "webqs",
    "boolq",
    "cb",
    "copa",
    "multirc",
    "record",
    "sglue_rte",
    "wic",
    "wsc",
    "sst2",
    "cola",
    "mrpc",
    "qqp",
    "qnli",
    "mnli",
    "wnli",
    "rte",
]
GENERATED = [
    "gsm8k",
    "gsm8k_cot",
    "gsm_plus",
    "triviaqa",
    "nq_open",
    "drop",
    "coqa",
    "bbh_zeroshot_boolean_expressions",
    "bbh_cot_fewshot_boolean_expressions",
    "hendrycks_math_algebra",
    "minerva_math_algebra",
    "ifeval",
    "squad_completion",
    "swde",
    "fda",
    "babi",
    "mmlu_anatomy_generative",
    "mmlu_pro_law",
    "eq_bench",
    "anagrams1",
    "cycle_letters",
    "wmt16-ro-en",
    "longbench_trec",
    "truthfulqa_gen",
    "mgsm_direct_en",
    "aime",
]
# Tasks that would write thousands of tokens.
_SHORT = ("bbh_cot_fewshot_boolean_expressions", "ifeval", "mmlu_pro_law", "aime")
# Tasks that need packages which are not everywhere: lm_eval cannot load them either, or `submit` says so.
LACKING = (
    "record",
    "coqa",
    "minerva_math_algebra",
    "ifeval",
    "longbench_trec",
    "humaneval",
    "mbpp",
)
REFUSED = {
    "humaneval": "runs code that the model writes",
    "mbpp": "runs code that the model writes",
    "squadv2": "makes 2 requests a document",
}


def scored() -> list[Case]:
    """Tasks that ask for log-likelihoods, as they are."""
    return [Case(task=name, may_lack=name in LACKING) for name in SCORED]


def generated() -> list[Case]:
    """Tasks whose answers are written, as they are, some with fewer tokens."""
    found = []
    for name in GENERATED:
        most = 48 if name in _SHORT else 0
        ours = {"task": {"generation": {"max_new_tokens": most}}} if most else {}
        theirs = {"gen_kwargs": {"max_gen_toks": most}} if most else {}
        found.append(Case(task=name, ours=ours, theirs=theirs, may_lack=name in LACKING))
    return found


def tasks() -> list[Case]:
    """All tasks, and those that are refused."""
    refused = [Case(task=name, refused=reason, may_lack=name in LACKING) for name, reason in REFUSED.items()]
    return [*scored(), *generated(), *refused]


def cases(folder: Path) -> list[Case]:
    """All of them. The YAML files of options are written to the new folder `folder`."""
    return [*tasks(), *of_runs(), *of_tasks(folder)]
