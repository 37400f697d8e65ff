from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sacrebleu

from hpcjobs.config.resolve import read_config
from hpcjobs.errors import ConfigError, UsageError
from hpcjobs.merge.eval import merge
from hpcjobs.merge.score import rescore
from hpcjobs.metrics import Judge
from hpcjobs.requests import Completion, Likelihood
from hpcjobs.run_folder.inputs import Inputs, user_columns, user_row
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.tasks.prompts import Prompts
from tests.runs import answer, hpcjobs, plan_run, rows_of, run_ranks, said, settle_by_hand, write_journal

ROWS = 40


@pytest.fixture
def paths(ram: Path) -> RunPaths:
    """A merged run."""
    found = plan_run(ram / "run", ROWS)
    run_ranks(found, 1)
    assert merge(found).complete
    return found


def scores(paths: RunPaths, name: str) -> list[float]:
    return [row[name] for row in pq.read_table(paths.results).column("scores").to_pylist()]


def test_the_same_metrics_give_the_same_again(paths: RunPaths) -> None:
    table, before = pq.read_table(paths.results), said(paths)
    rescore(paths, [], None)
    assert pq.read_table(paths.results).equals(table)
    assert said(paths) == before


def test_other_metrics_replace_the_scores_and_nothing_else(paths: RunPaths) -> None:
    table, exact = pq.read_table(paths.results), scores(paths, "exact_match")
    summary = rescore(paths, ["f1", "exact_match"], None)
    found = pq.read_table(paths.results)
    assert [field.name for field in found.schema.field("scores").type] == ["f1", "exact_match"]
    assert scores(paths, "exact_match") == exact
    assert scores(paths, "f1") == exact, "one word each: F1 is exact match"
    assert found.drop_columns(["scores"]).equals(table.drop_columns(["scores"]))
    assert json.loads(paths.metrics.read_text()) == summary
    assert list(summary["metrics"]) == ["f1", "exact_match"]
    assert summary["complete"] is True
    assert summary["provenance"]["rescored_at"] >= summary["provenance"]["merged_at"]


def test_another_target_is_compared_with(paths: RunPaths) -> None:
    right = answer(f"{rows_of(ROWS)[0]['question']} 60")
    rescore(paths, ["exact_match"], right)
    assert scores(paths, "exact_match") == [1.0] + [0.0] * (ROWS - 1)
    rescore(paths, ["contains"], "a")
    texts = pq.read_table(paths.results).column("completion").to_pylist()
    assert scores(paths, "contains") == [float("a" in text) for text in texts]
    assert 0 < sum(scores(paths, "contains")) < ROWS


def test_a_sample_with_an_error_counts_zero_though_its_text_would_match(paths: RunPaths) -> None:
    summary = rescore(paths, ["exact_match", "f1"], "{{ '' }}")
    assert summary["counts"]["errors"] == sum(not row["divisor"] for row in rows_of(ROWS)) > 0
    assert scores(paths, "exact_match") == scores(paths, "f1") == [0.0] * ROWS
    assert summary["metrics"]["f1"]["n"] == ROWS


def test_a_generate_run_gets_scores(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS, "generate")
    run_ranks(paths, 1)
    merge(paths)
    rescore(paths, ["contains"], "{{ gold }}")
    other = plan_run(ram / "other", ROWS)
    run_ranks(other, 1)
    merge(other)
    assert scores(paths, "contains") == scores(other, "contains")


def test_an_incomplete_run_stays_so(paths: RunPaths) -> None:
    journal = paths.journal("a", 0)
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-2]))
    paths.metrics.unlink()
    assert len(merge(paths).missing) == 2
    told = hpcjobs("score", paths.root, "--metric", "f1")
    assert told.returncode == 3, told.stderr
    assert (said(paths)["complete"], said(paths)["metrics"]["f1"]["n"]) == (False, ROWS - 2)


def test_what_cannot_be_scored_is_said_and_changes_nothing(paths: RunPaths, ram: Path) -> None:
    before = paths.results.read_bytes(), paths.metrics.read_bytes()
    with pytest.raises(ConfigError, match=r"no metric 'exat_match'.*did you mean 'exact_match'"):
        rescore(paths, ["exat_match"], None)
    with pytest.raises(ConfigError, match="'golden'"):
        rescore(paths, [], "{{ golden }}")
    assert (paths.results.read_bytes(), paths.metrics.read_bytes()) == before
    planned = plan_run(ram / "planned", 3)
    with pytest.raises(UsageError, match="does not exist yet; next: hpcjobs merge planned"):
        rescore(planned, [], None)
    untargeted = plan_run(ram / "untargeted", 3, "generate", task={"prompt": "{{ question }}", "target": None})
    run_ranks(untargeted, 1)
    merge(untargeted)
    with pytest.raises(ConfigError, match=r"no task\.target to compare with"):
        rescore(untargeted, ["f1"], None)
    with pytest.raises(ConfigError, match="no metric to score with"):
        rescore(plan_of_no_metrics(ram), [], None)


def plan_of_no_metrics(folder: Path) -> RunPaths:
    paths = plan_run(folder / "none", 3, "generate", task={"prompt": "{{ question }}", "metrics": []})
    run_ranks(paths, 1)
    merge(paths)
    return paths


GROUPED = {
    "prompt": "{{ question }} {{ 60 // divisor }}", "target": "{{ gold }}", "group_by": ["divisor", "question"],
    "metrics": ["exact_match", "bleu", "chrf"], "extract": "[0-9a-f]+",
}  # fmt: skip


def test_corpora_and_groups_are_the_same_again(ram: Path) -> None:
    """Merged from the journals, and scored from the table: the same table, values and groups."""
    paths = plan_run(ram / "run", ROWS, task=GROUPED)
    run_ranks(paths, 1)
    assert merge(paths).complete
    table, values = pq.read_table(paths.results), json.loads(paths.metrics.read_text())
    assert list(values["metrics"]) == ["exact_match", "bleu", "chrf", "answered"]
    errors = values["counts"]["errors"]
    assert errors > 0
    assert values["metrics"]["answered"]["value"] == pytest.approx(1 - errors / ROWS)
    assert {value: group["exact_match"]["n"] for value, group in values["groups"]["divisor"].items()} == {
        "0": errors, "1": ROWS - errors,
    }  # fmt: skip
    assert len(values["groups"]["question"]) == ROWS
    rows = table.to_pylist()
    answers, golds = [row["completion"] for row in rows], [row["input"]["gold"] for row in rows]
    assert values["metrics"]["bleu"]["value"] == sacrebleu.corpus_bleu(answers, [golds]).score
    assert values["metrics"]["chrf"]["value"] == sacrebleu.corpus_chrf(answers, [golds]).score
    assert 0 < values["metrics"]["chrf"]["value"] < 100
    again = rescore(paths, [], None)
    assert pq.read_table(paths.results).equals(table)
    for key in ("metrics", "groups", "warnings", "counts"):
        assert again[key] == values[key], key
    assert list(rescore(paths, ["chrf"], None)["groups"]["divisor"]["1"]) == ["chrf"]


def test_a_column_of_too_many_groups_is_warned_of_once(ram: Path) -> None:
    paths = plan_run(ram / "run", 1001, task=GROUPED | {"metrics": ["exact_match"]})
    run_ranks(paths, 1)
    merge(paths)
    warning = "task.group_by: question has more than 1000 different values: left out"
    for _ in range(2):
        values = json.loads(paths.metrics.read_text())
        assert values["warnings"].count(warning) == 1
        assert list(values["groups"]) == ["divisor"]
        rescore(paths, [], None)


def merged_answers(paths: RunPaths, answers: list[Completion]) -> dict[str, Any]:
    """The metrics of a run whose one rank has given `answers`, scored as a rank scores them."""
    task, inputs = read_config(paths.config).task, Inputs(paths.data)
    judge, prompts = Judge(task), Prompts(task, user_columns(inputs.columns))
    made = []
    for record in settle_by_hand(paths):
        answer, asked = answers[record.index], user_row(inputs[record.index])
        found = answer.likelihood or Likelihood((), (), ())
        seen = dataclasses.replace(found, options=tuple(prompts.options(asked)))
        scores = judge.judge(dataclasses.replace(answer, likelihood=seen), prompts.target(asked), asked)
        sums = {name: score.statistics for name, score in scores.items() if score.statistics is not None}
        record = dataclasses.replace(record, completion=answer.text, completions=answer.texts, statistics=sums)
        record = dataclasses.replace(record, scores={name: score.number for name, score in scores.items()})
        made.append(
            dataclasses.replace(
                record, choice_logprobs=found.logprobs, choice_greedy=found.greedy, choice_tokens=found.tokens
            )
        )
    write_journal(paths, made)
    assert merge(paths).complete
    metrics: dict[str, Any] = said(paths)["metrics"]
    return metrics


def likely(*logprobs: float, tokens: int = 1) -> Completion:
    count = len(logprobs)
    return Completion(
        index=0, text="", finish_reason="stop", likelihood=Likelihood(logprobs, (False,) * count, (tokens,) * count)
    )


CHOICE = {
    "type": "choice", "prompt": "{{ question }}", "choices": ["yes", "{{ gold }}", "surely not"], "target": "{{ 1 }}",
    "metrics": ["acc", "acc_norm", "acc_bytes"],
}  # fmt: skip


def test_options_are_taken_from_the_rows_prompts(ram: Path) -> None:
    paths = plan_run(ram / "run", 3, task=CHOICE)
    answers = [likely(-1.0, -3.0, -9.0), likely(-4.0, -3.0, -29.0), likely(-7.0, -math.inf, -1.0)]
    before = merged_answers(paths, answers)
    assert before["acc"]["value"] == pytest.approx(1 / 3)
    assert before["acc"]["by_option"] == {"B": {"value": pytest.approx(1 / 3), "n": 3}}
    assert scores(paths, "acc") == [0, 1, 0]
    assert scores(paths, "acc_norm") == scores(paths, "acc_bytes") == [1, 0, 0], "row 0's gold is 16 letters long"
    table = pq.read_table(paths.results)
    assert rescore(paths, [], None)["metrics"] == before
    assert pq.read_table(paths.results).equals(table)


REPEATS = {
    "prompt": "{{ question }}", "target": "{{ gold }}", "repeats": 3, "extract": "[0-9a-f]+",
    "metrics": ["pass@1", "pass@2(exact_match)", "majority", "bleu"],
}  # fmt: skip


def test_several_answers_are_scored_again(ram: Path) -> None:
    paths = plan_run(ram / "run", 2, task=REPEATS)
    golds = [row["gold"] for row in rows_of(2)]
    texts = [["zz", golds[0], golds[0]], [golds[1], "zz", "0"]]
    before = merged_answers(
        paths, [Completion(index=0, text=each[0], finish_reason="stop", texts=tuple(each)) for each in texts]
    )
    assert {name: one["value"] for name, one in before.items() if name != "bleu"} == pytest.approx(
        {"pass@1": 0.5, "pass@2(exact_match)": (1 + 2 / 3) / 2, "majority": 1.0, "answered": 4 / 6}
    )
    table = pq.read_table(paths.results)
    assert table.column("completions").to_pylist() == texts
    assert rescore(paths, [], None)["metrics"] == before
    assert pq.read_table(paths.results).equals(table)
    assert set(rescore(paths, ["majority(number_match)"], None)["metrics"]) == {"majority(number_match)"}


PERPLEXITY = {
    "type": "perplexity", "prompt": "{{ question }}", "target": None, "metrics": ["perplexity", "bits_per_byte"],
}  # fmt: skip


def test_perplexity_counts_the_text_again(ram: Path) -> None:
    paths = plan_run(ram / "run", 2, task=PERPLEXITY)
    before = merged_answers(paths, [likely(-8.0, tokens=4)] * 2)
    size = sum(len(row["question"].encode()) for row in rows_of(2))
    assert before["perplexity"]["value"] == pytest.approx(math.exp(2))
    assert before["bits_per_byte"]["value"] == pytest.approx(16 / size / math.log(2))
    table = pq.read_table(paths.results)
    assert rescore(paths, [], None)["metrics"] == before
    assert pq.read_table(paths.results).equals(table)
