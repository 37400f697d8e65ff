"""What a plan shows of the first prompt, against what a rank makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.assets import ASSETS
from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.plan.draft import Draft
from hpcjobs.plan.eval import make_plan
from hpcjobs.plan.first_prompt import FirstPrompt, end_tokens
from tests.fake_slurm import Shell

CHAT = ({"role": "user", "content": "{{ question }}"},)


def planned(folder: Path, row: dict[str, Any] | None = None, model: str = "tiny", **task: Any) -> Draft:
    data = folder / "d.jsonl"
    data.write_text(json.dumps({"id": "a", "question": "Spell: qiva", "answer": "q-i-v-a"} | (row or {})) + "\n")
    engine = {"engine": "dummy"} if model == "dummy" else {"name": model}
    values: dict[str, dict[str, Any]] = {"model": engine, "data": {"name": str(data)}}
    values["task"] = {"messages": CHAT, "target": "{{ answer }}", "metrics": ["exact_match"]} | task
    return make_plan("eval", validate(Layer(values)), folder / "run")


def shown(draft: Draft) -> FirstPrompt:
    assert draft.first is not None
    return draft.first


@pytest.mark.model
@pytest.mark.parametrize("task", [{}, {"messages": None, "prompt": "Spell: {{ question }}"}])
def test_tokens_and_ends_are_those_of_a_rank(tmp_path: Path, task: dict[str, Any]) -> None:
    from hpcjobs.config import ModelConfig
    from hpcjobs.engines import end_tokens as ours
    from hpcjobs.engines.encoding import prompt_ids
    from hpcjobs.engines.loader import ModelSource, load_tokenizer
    from hpcjobs.model_loader import load_model

    tokenizer = load_tokenizer(ModelSource.of(ModelConfig(name="tiny")))
    prompt = "Spell: Spell: qiva" if task else [{"role": "user", "content": "Spell: qiva"}]
    ids = prompt_ids(tokenizer, prompt)
    first = shown(planned(tmp_path, **task))
    assert first.tokens == len(ids)
    assert first.text == tokenizer.decode(ids) or task
    model = load_model("tiny")[0]
    assert set(end_tokens(ASSETS / "tiny")) == ours.end_tokens(model, tokenizer)
    assert first.ends == tuple(tokenizer.convert_ids_to_tokens(end_tokens(ASSETS / "tiny")))


@pytest.mark.parametrize(
    ("task", "score"),
    [
        ({}, 1.0), ({"extract": r"answer: (\w+)"}, 0.0), ({"metrics": ["f1"]}, 1.0), ({"repeats": 2}, 1.0),
        ({"target": "{{ [answer, 'x'] }}"}, 1.0), ({"metrics": ["json_valid"]}, None),
    ],
)  # fmt: skip
def test_the_target_is_judged_as_an_answer(tmp_path: Path, task: dict[str, Any], score: float | None) -> None:
    first = shown(planned(tmp_path, model="dummy", **task))
    assert first.score == score
    *_, last = first.lines()
    assert last.startswith('# target: "q-i-v-a"' if "target" not in task else '# target: ["q-i-v-a", "x"]')
    assert ("as an answer it has" in last) == (score is not None)


def test_options_are_shown_as_texts_and_long_prompts_in_part(tmp_path: Path) -> None:
    first = shown(planned(tmp_path, type="choice", choices=["x", "{{ answer }}"], metrics=["acc"], target="1"))
    assert (first.target, first.score, first.ends) == ("q-i-v-a", None, ())
    long = {"question": "begin " + "x" * 9000 + " end"}
    first = shown(planned(tmp_path, long, model="dummy"))
    text = first.lines()[1]
    assert text.startswith("user: begin xxx")
    assert text.endswith("xxx end")
    assert "[... 7,416 characters ...]" in text
    assert len(text) < 1700


def test_a_dry_run_shows_it_through_the_filter_and_the_question_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(tmp_path, monkeypatch, capsys)
    shell.write("d.jsonl", json.dumps({"id": "a\x1b[2J", "question": "x\x1b[31m", "answer": "y"}) + "\n")
    metric = "task.metrics=[bleu: {tokenize: char}]"
    words = ["submit", "eval", "--data", "d.jsonl", "--set", "model.engine=dummy", "--set", metric]
    said = shell.run(*words, "--dry-run")
    assert "\nuser: x\\x1b[31m\n" in said.out
    assert "\x1b" not in said.out
    assert 'task.metrics = ["bleu(tokenize=char)"]    # --set task.metrics' in said.out
    assert json.loads(shell.run(*words, "--dry-run", "--json").out)["first"]["text"] == "user: x\x1b[31m"
    monkeypatch.setattr("hpcjobs.cli.ask.is_asked", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    said = shell.run(*words)
    assert said.code == 130
    assert "\nuser: x" in said.err
    assert "not queued" in said.err
