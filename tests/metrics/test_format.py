from __future__ import annotations

from hpcjobs.metrics.format import group_lines, number_text, score_lines
from hpcjobs.run_folder.metrics_file import OptionSummary, Summary


def summary(value: float | None, n: int = 10, interval: list[float] | None = None) -> Summary:
    return {"value": value, "stderr": None, "ci95": interval, "bootstrap_ci95": None, "n": n}


def test_a_line_a_metric() -> None:
    options: dict[str, OptionSummary] = {"A": {"value": 1.0, "n": 4}, "B": {"value": 0.25, "n": 8}}
    acc: Summary = {**summary(0.5, 12, [0.25, 0.75]), "by_option": options}
    metrics = {"acc": acc, "pass@5(exact_match)": summary(1.0), "f1": summary(None, 0)}
    assert list(score_lines(metrics, "  INCOMPLETE")) == [
        "acc                 0.5000  95% [0.2500, 0.7500]  n=12  INCOMPLETE",
        "  right option      A 1.0000 (n=4), B 0.2500 (n=8)",
        "pass@5(exact_match) 1.0000  n=10  INCOMPLETE",
        "f1                  -         n=0  INCOMPLETE",
    ]
    assert list(score_lines({"f1": summary(0.5)})) == ["f1               0.5000  n=10"]
    assert list(score_lines({"loss": {**summary(4.25e-5), "step": 12}})) == ["loss             4.25e-05  step 12"]
    assert list(score_lines({})) == []


def test_a_table_a_column() -> None:
    groups = {
        "subject": {
            "law": {"acc": summary(0.5, 4, [0.25, 0.75]), "acc_norm": summary(None, 0)},
            "a\nvery long name of a subject, longer than that": {"acc": summary(1.0, 1), "acc_norm": summary(0.0, 1)},
        },
        "hard": {"true": {"acc": summary(0.0)}},
    }
    assert list(group_lines(groups)) == [
        "",
        "subject                                  n                       acc                  acc_norm",
        "law                                      4     0.5000 [0.250, 0.750]                         -",
        "a very long name of a subject, …         1                    1.0000                    0.0000",
        "",
        "hard         n                       acc",
        "true        10                    0.0000",
    ]
    assert list(group_lines({})) == []
    assert list(group_lines({"subject": {}})) == [], "no sample yet"


def test_the_rest_of_many_values_is_counted() -> None:
    lines = list(group_lines({"n": {str(number): {"f1": summary(0.0)} for number in range(23)}}))
    assert len(lines) == 23, "a blank line, the heading, 20 values, and this:"
    assert lines[-1] == "... and 3 other values of n: metrics.json has all"


def test_a_name_of_32_characters_is_not_cut_and_none_is_blank() -> None:
    values = {"a" * 32: "a" * 32, "a" * 33: "a" * 31 + "…", " \n": '""', "b  c": "b c"}
    lines = list(group_lines({"c": {value: {} for value in values}}))
    assert [line.split("  ")[0].rstrip() for line in lines[2:]] == list(values.values())
    assert lines[4] == '""' + " " * 30 + "         0", "no metric has counted any"


def test_large_numbers_stay_short() -> None:
    values = [0.12345, 99999.0, 123456.0, 6.85e24, -7e29]
    small = [0.0, 0.00123456, 0.00099994, 4.17701e-05, -2e-9]
    assert [number_text(value) for value in small] == ["0.0000", "0.0012", "0.0009999", "4.177e-05", "-2e-09"]
    assert [number_text(value) for value in values] == ["0.1235", "99999.0000", "1.235e+05", "6.85e+24", "-7e+29"]
