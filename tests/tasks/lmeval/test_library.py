"""Tasks of lm_eval's library, and its options, on two ranks: what `simple_evaluate` says of the same model.

The whole form, 150 cases, is `python -m tests.reference.lm_eval_library`; its table is in docs/lm-eval-tasks.md.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.reference.lm_eval_library.bench import Bench, Case
from tests.reference.lm_eval_library.cases import LACKING, cases
from tests.reference.lm_eval_library.hub import small_model
from tests.reference.lm_eval_library.page import name_of, named

pytestmark = pytest.mark.model

TASKS = [
    "arc_challenge",
    "hellaswag",
    "winogrande",
    "mmlu_anatomy",
    "lambada_openai",
    "wikitext",
    "crows_pairs_english",
    "wsc273",
    "gpqa_main_zeroshot",
    "kmmlu_law",
    "webqs",
    "gsm_plus",
    "swde",
    "squadv2",
]
OPTIONS = [
    "fewshot seed",
    "samples",
    "predict_only",
    "chat template, system, examples",
    "fewshot_config samples",
    "repeats and majority_vote",
    "filter map",
    "repetition_penalty",
    "typical_p",
    "process_results",
    "acc_mutual_info",
    "several inputs",
    "images",
    "by the path of its file",
    "nested",
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(small_model(tmp_path_factory.mktemp("library") / "model"))


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    return cases(tmp_path_factory.mktemp("library") / "tasks")


@pytest.mark.parametrize("name", [*TASKS, *OPTIONS])
def test_it_is_equal_or_refused(bench: Bench, every: list[Case], tmp_path: Path, name: str) -> None:
    titles = [one.task if one.what in ("", "as a group") else one.what for one in every]
    case = every[titles.index(name)]
    found = bench.compare(case, tmp_path / "run")
    assert found.differences == ()
    assert bool(found.refused) == bool(case.refused)
    if not case.refused:
        assert found.samples >= 4 or name == "samples"
        assert found.values > 0 or name == "predict_only"


@pytest.mark.parametrize("name", ["arc_challenge", "gsm_plus"])
def test_other_prompts_differ(bench: Bench, every: list[Case], tmp_path: Path, name: str) -> None:
    case = next(one for one in every if one.task == name)
    other = dataclasses.replace(case, ours={"task": {"description": "Say 5 and 7: "}})
    assert bench.compare(other, tmp_path / "run").differences


def test_the_page_names_every_case(every: list[Case]) -> None:
    assert named() == {name for case in every for name in name_of(case).split(", ")}
    assert len({case.task for case in every if not case.what and case.task not in LACKING}) >= 60
    assert len([case for case in every if case.what]) >= 30
