"""Metrics: small classes that score one sample, found by name or as `package.module:Class`."""

from hpcjobs.metrics.aggregate import Aggregator, fold_of
from hpcjobs.metrics.base import Metric, Score, golds, leaves_errors_out, metric_errors
from hpcjobs.metrics.fold import Fold, MeanFold
from hpcjobs.metrics.groups import check_groups
from hpcjobs.metrics.judge import Judge
from hpcjobs.metrics.registry import BUILT_IN, OVER_REPEATS, find_metric, find_metrics, metrics_of
from hpcjobs.metrics.scoring_version import SCORING, changed_since
from hpcjobs.metrics.sums import SumsFold

__all__ = [
    "BUILT_IN",
    "OVER_REPEATS",
    "SCORING",
    "Aggregator",
    "Fold",
    "Judge",
    "MeanFold",
    "Metric",
    "Score",
    "SumsFold",
    "changed_since",
    "check_groups",
    "find_metric",
    "find_metrics",
    "fold_of",
    "golds",
    "leaves_errors_out",
    "metric_errors",
    "metrics_of",
]
