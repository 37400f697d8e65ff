"""Clustered errors against statsmodels' figures, the formula by numpy, and the usual error of single samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hpcjobs.compare.statistics import Differences
from hpcjobs.config import TaskConfig
from hpcjobs.metrics import Aggregator, MeanFold, find_metrics
from hpcjobs.metrics.bootstrap import resampled_totals
from hpcjobs.metrics.clusters import ClusterCodes, ClusteredFold, ClusterTotals
from hpcjobs.metrics.fold import wilson
from hpcjobs.metrics.format import score_lines

# statsmodels 0.15: OLS(s, ones).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True): bse and conf_int.
STATSMODELS = [
    (0, 200, 23, 0.045070147346310964, 0.5565302352520197, 0.7434697647479805),
    (5, 12, 4, 0.0680413817439772, 0.2834619560624816, 0.7165380439375186),
    (2, 1000, 150, 0.016951694338313117, 0.5125032286033343, 0.5794967713966662),
]


def drawn(seed: int, n: int, clusters: int) -> tuple[Any, Any]:
    """Right or wrong, more alike within a cluster; and the cluster of each."""
    draw = np.random.default_rng(seed)
    groups = draw.integers(0, clusters, n)
    return (draw.random(n) + 0.3 * draw.random(clusters)[groups] > 0.6).astype(float), groups


def folded(scores: Any, groups: Any, size: int = 7, bounds: tuple[float, float] | None = (0, 1)) -> dict[str, Any]:
    fold, codes = ClusteredFold(MeanFold(bounds)), ClusterCodes()
    for start in range(0, len(scores), size):
        part = codes.of(pa.array(groups[start : start + size]))
        fold.add(np.asarray(scores[start : start + size], float), None, part)
    return dict(fold.summary())


@pytest.mark.parametrize(("seed", "n", "clusters", "error", "low", "high"), STATSMODELS)
def test_a_mean_of_clusters_is_statsmodels(
    seed: int, n: int, clusters: int, error: float, low: float, high: float
) -> None:
    scores, groups = drawn(seed, n, clusters)
    found = folded(scores, groups)
    assert (found["n"], found["clusters"]) == (n, len(set(groups.tolist())))
    assert found["value"] == pytest.approx(scores.mean())
    assert found["stderr"] == pytest.approx(error, rel=1e-9)
    assert found["ci95"] == pytest.approx([low, high], rel=1e-8)
    assert found == {**folded(scores, groups, 1000)}, "whatever the batches"


@pytest.mark.parametrize(("seed", "n", "clusters", "error", "low", "high"), STATSMODELS)
def test_paired_differences_of_clusters_are_statsmodels(
    seed: int, n: int, clusters: int, error: float, low: float, high: float
) -> None:
    scores, groups = drawn(seed, n, clusters)
    found = Differences()
    for start in range(0, n, 13):
        part = slice(start, start + 13)
        found.add(np.zeros(n)[part], scores[part], groups[part])
    assert (found.n, found.clusters, found.mcnemar()) == (n, len(set(groups.tolist())), None)
    assert found.stderr == pytest.approx(error, rel=1e-9)
    assert found.interval() == pytest.approx((low, high), rel=1e-8)
    ends = found.bootstrap()
    assert ends is not None
    assert ends[0] < scores.mean() < ends[1]


def test_the_error_is_millers_formula_with_the_correction_for_few_clusters() -> None:
    """Equation 4 of arXiv 2411.00640 by two loops: its cross terms are those between samples of one cluster."""
    scores, groups = drawn(7, 60, 9)
    off, n, count = scores - scores.mean(), 60, len(set(groups.tolist()))
    pairs = [(i, j) for i in range(n) for j in range(n) if groups[i] == groups[j]]
    cross = sum(off[i] * off[j] for i, j in pairs if i != j)
    miller = math.sqrt(scores.var(ddof=1) / n + cross / n**2)
    own = math.sqrt(sum(off[i] * off[j] for i, j in pairs) * count / (count - 1)) / n
    assert folded(scores, groups)["stderr"] == pytest.approx(own, rel=1e-12)
    assert own == pytest.approx(miller, rel=0.08)


def test_clusters_of_one_sample_have_the_usual_error() -> None:
    scores = np.random.default_rng(3).random(40)
    usual = MeanFold()
    usual.add(scores)
    found = folded(scores, np.arange(40))
    assert found["stderr"] == pytest.approx(usual.summary()["stderr"], rel=1e-12)
    assert folded(scores, [None] * 40)["stderr"] == found["stderr"], "without a value each is one of its own"
    assert folded(scores, [None] * 40)["clusters"] == 40


@pytest.mark.parametrize("n", [0, 1, 2, 10, 1000])
def test_few_samples_few_clusters_all_equal_and_nan(n: int) -> None:
    one = folded(np.ones(n), np.zeros(n, int))
    assert (one["stderr"], one["ci95"], one["bootstrap_ci95"]) == (None, None, None), "one cluster"
    equal = folded(np.ones(n), np.arange(n) % 5)
    count = min(n, 5)
    assert equal["clusters"] == count
    assert equal["ci95"] == (wilson(1.0, count) if count > 1 else None), "as many samples as clusters"
    tenths = folded(np.full(n, 0.1), np.arange(n) % 5)
    assert tenths["ci95"] == (pytest.approx([0.1, 0.1]) if count > 1 else None)
    nothing = folded(np.full(n, np.nan), np.arange(n) % 5)
    assert (nothing["value"], nothing["stderr"], nothing["n"], nothing["clusters"]) == (None, None, 0, 0)


def board(group_by: tuple[str, ...] = ()) -> Aggregator:
    """30 rows of 6 passages and 2 subjects; a mean and a corpus metric."""
    scores, groups = drawn(1, 30, 6)
    counts = [[float(score), 1.0] for score in -1 - scores]
    rows = pa.table(
        {
            "scores": pa.StructArray.from_arrays(
                [pa.array(scores), pa.array(np.exp(1 + scores))], ["f1", "perplexity"]
            ),
            "statistics": pa.StructArray.from_arrays([pa.array(counts)], ["perplexity"]),
            "input": pa.StructArray.from_arrays(
                [pa.array([f"p{g}" for g in groups]), pa.array(["a", "b"] * 15)], ["passage", "subject"]
            ),
        }
    )
    names = ("f1", "perplexity")
    made = Aggregator(find_metrics(names), TaskConfig(metrics=names, group_by=group_by, cluster_by="passage"))
    for start in range(0, 30, 8):
        made.add(rows.slice(start, 8))
    return made


def test_each_metric_and_each_group_has_its_clusters() -> None:
    scores, groups = drawn(1, 30, 6)
    made = board(("subject",))
    summary, found = made.summary(), made.groups()["subject"]
    assert summary["f1"]["stderr"] == folded(scores, groups)["stderr"]
    assert summary["f1"]["clusters"] == summary["perplexity"]["clusters"] == len(set(groups.tolist()))
    assert summary["perplexity"]["value"] == pytest.approx(math.exp(1 + scores.mean()))
    for place, subject in enumerate("ab"):
        alone = folded(scores[place::2], groups[place::2])
        assert found[subject]["f1"]["stderr"] == pytest.approx(alone["stderr"], rel=1e-12)
        assert found[subject]["f1"]["clusters"] == alone["clusters"]
    [line, _] = score_lines(summary)
    assert line.endswith(f"n=30 in {len(set(groups.tolist()))} clusters")


def test_a_corpus_metric_is_resampled_by_cluster() -> None:
    """Two clusters, alike within: the errors of pairs of samples do not shrink with their number."""
    fold, usual = (find_metrics(["perplexity"])[0].fold() for _ in range(2))
    counts = pa.array([[-1.0, 1.0]] * 50 + [[-3.0, 1.0]] * 50, pa.list_(pa.float64()))
    clustered = ClusteredFold(fold)
    clustered.add(np.ones(100), counts, np.repeat([0, 1], 50))
    usual.add(np.ones(100), counts)
    one, other = clustered.summary(), usual.summary()
    assert one["value"] == other["value"]
    assert one["stderr"] is not None
    assert other["stderr"] is not None
    assert one["stderr"] > 5 * other["stderr"]


def test_a_batch_without_any_score_of_a_corpus_metric_changes_nothing() -> None:
    counts = pa.array([[-1.0, 1.0], [-3.0, 1.0], [-2.0, 1.0]], pa.list_(pa.float64()))
    found = []
    for empty in (True, False):
        clustered = ClusteredFold(find_metrics(["perplexity"])[0].fold())
        if empty:
            clustered.add(np.full(2, np.nan), None, np.array([5, 6]))
        clustered.add(np.ones(3), counts, np.array([0, 1, 0]))
        found.append(clustered.summary())
    assert found[0] == found[1]
    assert found[0]["clusters"] == 2


def test_neighbours_of_many_clusters_are_joined_in_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcjobs.metrics.clusters.MOST_BLOCKS", 4)
    rows = np.arange(18.0).reshape(9, 2)
    for count, sizes in ((4, [1] * 4), (5, [2, 2, 1]), (9, [4, 4, 1])):
        totals = ClusterTotals(2)
        totals.add(rows[:count], np.arange(count))
        starts = np.cumsum([0, *sizes[:-1]])
        assert (totals.resampled() == resampled_totals(np.add.reduceat(rows[:count], starts))).all()


def test_clusters_are_numbered_as_they_appear() -> None:
    codes = ClusterCodes()
    assert codes.of(pa.array(["a", None, "b", "a", None])).tolist() == [0, 1, 2, 0, 3]
    assert codes.of(pa.array(["c", "b", None]).dictionary_encode()).tolist() == [4, 2, 5]
    assert codes.of(pa.array([], pa.string())).dtype == np.int64


def test_sums_of_clusters_are_in_order_of_appearance() -> None:
    totals = ClusterTotals(2)
    rows = np.arange(40.0).reshape(20, 2)
    codes = np.array([7, 3, 7, 9, *range(20, 36)])
    for start in range(0, 20, 3):
        totals.add(rows[start : start + 3], codes[start : start + 3])
    expected = [rows[codes == code].sum(axis=0).tolist() for code in dict.fromkeys(codes.tolist())]
    assert totals.sums.tolist() == expected


def test_a_mean_is_resampled_by_whole_clusters() -> None:
    """From the seed 0, as everywhere: the shares of 1000 draws of all clusters."""
    scores, groups = drawn(5, 80, 6)
    names = list(dict.fromkeys(groups.tolist()))
    sums = np.array([[scores[groups == name].sum(), (groups == name).sum()] for name in names])
    totals = sums[np.random.default_rng(0).integers(0, len(names), (1000, len(names)))].sum(axis=1)
    expected = np.percentile(totals[:, 0] / totals[:, 1], [2.5, 97.5])
    assert folded(scores, groups)["bootstrap_ci95"] == pytest.approx(expected, rel=1e-12)


def test_an_interval_of_clusters_is_cut_at_the_bounds() -> None:
    """Of two clusters, one all right and one all wrong, it is as wide as t of one degree makes it."""
    scores, groups = np.repeat([0.0, 1.0], 10), np.repeat([0, 1], 10)
    half = 12.7062047 * 0.5
    for bounds, ends in ((None, [0.0, 1.0]), ((-2.0, 3.0), [-2.0, 3.0]), ((0.0, 9.0), [0.0, 0.5 + half])):
        assert folded(scores, groups, bounds=bounds)["ci95"] == pytest.approx(ends)
    others = folded(scores + 0.25, groups, bounds=None)["ci95"]
    assert others == pytest.approx([0.75 - half, 0.75 + half]), "these are no shares"


class Own:
    """A user's fold."""

    def __init__(self) -> None:
        self.n, self.few = 0, False

    def add(self, scores: Any, statistics: Any = None) -> None:
        self.n += len(scores)

    def limit(self) -> None:
        self.few = True

    def notes(self) -> list[str]:
        return ["a note"]

    def summary(self) -> Any:
        return {"value": 3.0, "stderr": None, "ci95": None, "n": self.n}


def test_a_fold_of_the_users_keeps_its_own_errors() -> None:
    own = Own()
    clustered = ClusteredFold(own)
    clustered.limit()
    clustered.add(np.ones(2), None, np.array([0, 1]))
    assert clustered.summary() == {"value": 3.0, "stderr": None, "ci95": None, "n": 2}
    assert (own.few, clustered.notes(), ClusteredFold(MeanFold()).notes()) == (True, ["a note"], [])


def test_clusters_are_counted_also_where_there_is_no_value() -> None:
    fold = ClusteredFold(find_metrics(["perplexity"])[0].fold())
    fold.add(np.ones(3), pa.array([[-1.0, 0.0]] * 3, pa.list_(pa.float64())), np.array([0, 1, 0]))
    found = fold.summary()
    assert (found["value"], found["n"], found["clusters"], found["stderr"]) == (None, 3, 2, None)


def test_a_sample_without_a_score_is_of_no_cluster() -> None:
    scores = np.array([1.0, math.nan, 0.0, 1.0])
    found = folded(scores, np.array([0, 1, 2, 0]), 2)
    assert (found["n"], found["clusters"]) == (3, 2)
    assert found["stderr"] == pytest.approx(math.sqrt(2 * 2 * (2 / 3) ** 2) / 3)
