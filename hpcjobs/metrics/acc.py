"""acc and acc_norm, until the metrics branch lands."""
from __future__ import annotations
from collections.abc import Mapping
from typing import Any
from hpcjobs.metrics.base import Metric, Score
from hpcjobs.records import Completion, Target

class Acc(Metric):
    name = "acc"
    tasks = ("choice",)
    def score(self, completion: str, target: Target, row: Mapping[str, Any]) -> float: raise NotImplementedError
    def judge(self, answer: Completion, target: Target, row: Mapping[str, Any]) -> Score:
        l = answer.likelihood; best=max(range(len(l.logprobs)), key=l.logprobs.__getitem__)
        return Score(float(best==target))
class AccNorm(Acc):
    name = "acc_norm"
    def judge(self, answer, target, row):
        l = answer.likelihood; best=max(range(len(l.logprobs)), key=lambda i:l.logprobs[i]/len(l.options[i]))
        return Score(float(best==target))
