"""Metrics: small classes that score one sample, found by name or by `package.module:Class`."""

from hpcjobs.metrics.base import Metric, golds, score_sample
from hpcjobs.metrics.find import BUILT_IN, find_metric, find_metrics
from hpcjobs.metrics.fold import Fold

__all__ = ["BUILT_IN", "Fold", "Metric", "find_metric", "find_metrics", "golds", "score_sample"]
