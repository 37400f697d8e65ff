"""Which nodes run the next attempt of a program."""

from __future__ import annotations

from hpcjobs.launch.failure import Failure
from hpcjobs.launch.spares import Nodes


def failure(host: str | None, own: bool = True, silent: tuple[str, ...] = ()) -> Failure:
    return Failure(rank=1, host=host, why="", own=own, silent=frozenset(silent))


def test_the_last_nodes_are_the_spares() -> None:
    nodes = Nodes(["a", "b", "c", "d"], 3)
    assert (nodes.chosen(), nodes.left_out()) == (["a", "b", "c"], [])


def test_a_rank_that_stood_still_marks_its_node_at_once_and_one_that_fails_when_it_does_so_again() -> None:
    nodes = Nodes(["a", "b", "c", "d"], 3)
    nodes.blame(failure("b"))
    nodes.blame(failure("c"))
    assert nodes.chosen() == ["a", "b", "c"]
    nodes.blame(failure("b"))
    assert (nodes.chosen(), nodes.left_out()) == (["a", "c", "d"], ["b"])
    other = Nodes(["a", "b", "c", "d"], 3)
    other.blame(failure("a", own=False))
    assert (other.chosen(), other.left_out()) == (["b", "c", "d"], ["a"])


def test_a_bad_node_is_better_than_none_and_one_that_is_gone_is_none() -> None:
    nodes = Nodes(["a", "b", "c", "d"], 3)
    nodes.blame(failure("a", own=False))
    nodes.blame(failure("b", own=False, silent=("b",)))
    assert (nodes.chosen(), nodes.left_out()) == (["a", "c", "d"], ["b"])
    nodes.blame(failure("c", own=False, silent=("c",)))
    assert nodes.chosen() == ["a", "d"], "too few"


def test_where_slurm_had_none_to_spare_the_same_nodes_are_taken() -> None:
    nodes = Nodes(["a", "b", "c"], 3)
    for _ in range(3):
        nodes.blame(failure("b"))
    assert (nodes.chosen(), nodes.left_out()) == (["a", "b", "c"], [])


def test_a_failure_without_a_node_blames_none() -> None:
    nodes = Nodes(["a", "b"], 1)
    for _ in range(3):
        nodes.blame(failure(None))
    assert nodes.chosen() == ["a"]
