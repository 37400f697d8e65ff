"""Write answers.json: what the model of these tests answers to the rows of the tasks of generation."""

from __future__ import annotations

import json
from typing import Any

from tests.reference.lm_eval_library.bench import Bench
from tests.reference.lm_eval_library.cases import generated
from tests.reference.lm_eval_library.hub import ANSWERS, ASKED, answers, offline_hub


def write_answers(bench: Bench) -> None:
    """One list for each data set: the answers of the first task that reads it, as its last filter has them."""
    ANSWERS.write_text("{}")
    answers.cache_clear()
    found = dict[str, list[str]]()
    with offline_hub():
        for case in generated():
            try:
                said = bench.reference(case)
            except Exception as error:  # what cannot be loaded here has no answers
                print(f"{case.title}: {type(error).__name__}")
                continue
            samples = said["samples"][case.task]
            last = samples[-1]["filter"]
            found.setdefault(ASKED[-1], [_text(one) for one in samples if one["filter"] == last])
    ANSWERS.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    answers.cache_clear()


def _text(sample: dict[str, Any]) -> str:
    text = str(sample["filtered_resps"][0]).strip()
    return "" if text == "[invalid]" else text
