"""The shape of a job: nodes, ranks and GPUs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hpcjobs.config.schema import ClusterConfig
from hpcjobs.errors import UsageError


@dataclass(frozen=True)
class Shape:
    """Nodes, ranks and GPUs of a job. `workers` is the size of a job array, each with `nodes` nodes."""

    nodes: int
    ranks_per_node: int
    gpus_per_node: int
    gpus_per_rank: int
    workers: int = 1

    @property
    def ranks(self) -> int:
        """The world size: ranks of all nodes and workers."""
        return self.workers * self.nodes * self.ranks_per_node

    def __str__(self) -> str:
        if self.workers > 1:
            one = replace(self, workers=1)
            return f"array of {self.workers} x ({one}) = {self.ranks} ranks"
        nodes = f"{self.nodes} node{'s' if self.nodes > 1 else ''}"
        ranks = f"{self.ranks} rank{'s' if self.ranks > 1 else ''}"
        if self.gpus_per_node:
            per = f"{self.gpus_per_node} GPU{'s' if self.gpus_per_node > 1 else ''}"
            replica = f" ({self.gpus_per_rank} GPUs a rank)" if self.gpus_per_rank > 1 else ""
            return f"{nodes} x {per} = {ranks}{replica}"
        return f"{nodes} x {self.ranks_per_node} task{'s' if self.ranks_per_node > 1 else ''} = {ranks} on CPU"


def shape_of(cluster: ClusterConfig, gpus_per_rank: int, script: bool = False) -> Shape:
    """The shape that a cluster section requests. Raises a UsageError that says which numbers are valid."""
    per_node, workers = cluster.gpus_per_node or 0, cluster.array or 1
    if cluster.array is not None and cluster.nodes > 1 and not script:
        raise UsageError(
            f"--array {cluster.array} does not go with --nodes {cluster.nodes}: an array is of single-node workers, "
            "which share the samples through the ledger"
        )
    if cluster.gpus is not None and cluster.gpus_per_node is not None and cluster.gpus != per_node * cluster.nodes:
        raise UsageError(
            f"--gpus {cluster.gpus} (in total) and --gpus-per-node {per_node} on {cluster.nodes} node(s) contradict "
            "each other: leave one out"
        )
    if cluster.gpus is not None:
        per_node, rest = divmod(cluster.gpus, cluster.nodes)
        if rest:
            low, high = cluster.gpus - rest, cluster.gpus - rest + cluster.nodes
            would = " or ".join(f"--gpus {number}" for number in (low, high) if number)
            raise UsageError(
                f"--gpus {cluster.gpus} is the total for the job and does not divide by --nodes {cluster.nodes}: "
                f"use {would}, or another number of nodes"
            )
    if not per_node:
        return Shape(cluster.nodes, cluster.ntasks_per_node or 1, 0, gpus_per_rank, workers)
    ranks, rest = divmod(per_node, gpus_per_rank)
    if rest and not script:
        raise UsageError(f"{per_node} GPUs a node do not divide by model.gpus_per_rank {gpus_per_rank}")
    if cluster.ntasks_per_node not in (None, ranks) and not script:
        raise UsageError(
            f"--ntasks-per-node {cluster.ntasks_per_node} does not fit {per_node} GPUs a node with "
            f"{gpus_per_rank} a rank: that is {ranks} ranks a node; leave --ntasks-per-node out"
        )
    return Shape(cluster.nodes, cluster.ntasks_per_node or ranks, per_node, gpus_per_rank, workers)
