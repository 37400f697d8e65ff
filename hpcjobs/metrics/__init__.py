"""Metrics: small classes that score one sample, found by name or by `package.module:Class`."""

from hpcjobs.metrics.base import Metric, Score, golds
from hpcjobs.metrics.board import Board
from hpcjobs.metrics.find import BUILT_IN, find_metric, find_metrics
from hpcjobs.metrics.fold import Fold, MeanFold
from hpcjobs.metrics.judge import Judge

__all__ = ["BUILT_IN", "Board", "Fold", "Judge", "MeanFold", "Metric", "Score", "find_metric", "find_metrics", "golds"]
