"""Options of a metric: as a config writes them, checked when a run is planned."""

from __future__ import annotations

import re

import pydantic
import pytest

from hpcjobs.config.layers import text_layer
from hpcjobs.config.problems import validate
from hpcjobs.errors import ConfigError
from hpcjobs.metrics import find_metric, find_metrics
from hpcjobs.metrics.builtin.bleu import BleuSettings
from hpcjobs.metrics.registry import lower_is_better, registered_names
from hpcjobs.metrics.settings import full_name, split_name


def metrics(yaml: str) -> tuple[str, ...]:
    return validate(text_layer(f"task: {{metrics: {yaml}}}", "eval.yaml")).task.metrics


def test_a_map_is_a_metric_with_its_options() -> None:
    written = "[f1, bleu: {tokenize: zh, lowercase: true}, {chrf: {word_order: 2}}, 'rouge1(tokenizer=char)', bleu: {}]"
    assert metrics(written) == (
        "f1", "bleu(tokenize=zh, lowercase=true)", "chrf(word_order=2)", "rouge1(tokenizer=char)", "bleu",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("[bleu: zh]", "is not one metric with its options: {bleu: {tokenize: zh}}"),
        ("[{bleu: {}, chrf: {}}]", "is not one metric with its options"),
        ("[bleu: {tokenize: 'a,b'}]", "tokenize: 'a,b' has one of ( ) , ="),
        ("[3]", "task.metrics.0: must be a text"),
    ],
)
def test_what_is_no_metric_with_options_is_told(written: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"eval\.yaml:1.*" + re.escape(said)):
        metrics(written)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bleu(tokenise=zh)", "bleu has no option 'tokenise' (did you mean 'tokenize'?); it has tokenize, lowercase"),
        ("bleu(tokenize=zhh)", "bleu: tokenize: 'zhh' is none of 13a, zh, ja-mecab"),
        ("bleu(tokenize=zhh)", "(did you mean 'zh'?)"),
        ("chrf(beta=x)", "chrf: beta: Input should be a valid integer"),
        ("chrf(char_order=0)", "chrf: char_order: Input should be greater than or equal to 1 (got '0')"),
        ("rougeL(use_stemmer=maybe)", "rougeL: use_stemmer: Input should be a valid boolean"),
        ("rouge1(tokenizer=words)", "rouge1: tokenizer: 'words' is none of 13a"),
        ("f1(tokenize=zh)", "f1 has no options"),
        ("pass@2(f1(a=b))", "f1 has no options"),
        ("blue(tokenize=zh)", "no metric 'blue(tokenize=zh)' (did you mean"),
    ],
)  # fmt: skip
def test_an_option_that_is_wrong_is_told_with_the_valid_ones(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        find_metric(name)


def test_options_are_what_is_set_and_stay_so() -> None:
    given = BleuSettings.model_validate({"lowercase": "true"})
    assert given.chosen == {"lowercase": True}
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        setattr(given, "lowercase", False)  # noqa: B010
    with pytest.raises(ConfigError, match="bleu: tokenize: 'zhh' is none of"):
        find_metric("bleu(tokenize=zhh, lowercase=maybe)")
    assert (full_name("bleu", {}), full_name("bleu", {"a": "b", "c": "d"})) == ("bleu", "bleu(a=b, c=d)")


def test_a_tokenizer_without_its_library_is_told_when_the_run_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "MeCab", None)
    for name in ("bleu(tokenize=ja-mecab)", "rouge2(tokenizer=ja-mecab)"):
        with pytest.raises(ConfigError, match=re.escape(name) + r".*pip install sacrebleu\[ja\]"):
            find_metric(name)


def test_options_are_part_of_the_name_so_that_no_two_numbers_share_one() -> None:
    found = find_metrics(["bleu", "bleu(tokenize=zh)", "chrf( word_order = 2 )"])
    assert [metric.name for metric in found] == ["bleu", "bleu(tokenize=zh)", "chrf(word_order=2)"]
    scores = [metric.score("北京 是 首都", ["北京是首都"], {}) for metric in found[:2]]
    assert scores[0] < scores[1] == pytest.approx(100)
    assert find_metric("bleu").name == "bleu", "another one keeps its own"
    assert not lower_is_better("bleu(tokenize=zh)")
    assert registered_names(["bleu(tokenize=zh)", "pass@2(bleu(tokenize=zh))"]) == []


def test_the_tokenizers_are_sacrebleus() -> None:
    from typing import get_args

    from sacrebleu.metrics import BLEU

    ours = {*get_args(BleuSettings.model_fields["tokenize"].annotation)}
    assert {*BLEU.TOKENIZERS} - ours <= {"spBLEU-1K"}, "which the oldest version allowed does not have"
    assert ours <= {*BLEU.TOKENIZERS}


def test_what_has_no_option_keeps_its_name() -> None:
    for name in ("f1", "pass@5(number_match)", "my.module:Class", "a,b", "bleu()"):
        assert split_name(name) == (name, {})
