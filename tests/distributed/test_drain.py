"""By when a rank has to have left, by a clock that the test turns."""

from __future__ import annotations

import math

import pytest

from hpcjobs.distributed.drain import TIME_LIMIT, Allocation, Drain, drain_margin

NOW = 1_000_000.0


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


def drain(ends_in: float | None, margin: float = 10.0, warning: float = 90.0, kill_wait: float = 30.0) -> Drain:
    return Drain(Allocation(None if ends_in is None else NOW + ends_in, margin, warning, kill_wait), Clock())


@pytest.mark.parametrize(
    ("asked", "minutes", "margin"),
    [(None, 1, 3), (None, 0, 2), (None, 5, 15), (None, 30, 30), (None, 10_000, 30), (0, 30, 0), (77.5, 1, 77.5)],
)
def test_the_margin_is_a_share_of_the_limit_or_what_is_asked(asked: float | None, minutes: int, margin: float) -> None:
    assert drain_margin(asked, minutes) == margin


def test_what_would_not_end_before_the_limit_is_not_begun() -> None:
    clock = Clock()
    end = Drain(Allocation(NOW + 100, 10, 90, 30), clock)
    assert end.left() == 90
    assert end.has_room(90)
    clock.now += 60
    assert end.has_room(30)
    assert end.reason is None
    assert not end.has_room(30.1)
    assert end.reason == TIME_LIMIT


def test_once_it_has_said_no_it_says_so_for_good() -> None:
    end = drain(100)
    assert not end.has_room(91)
    assert not end.has_room(0)
    assert end.left() == 90, "what is in hand may still be finished"


def test_a_limit_that_has_passed_leaves_no_room_at_all() -> None:
    assert not drain(9, margin=10).has_room(0)
    assert drain(10, margin=10).has_room(0)


def test_where_no_end_is_known_there_is_room_for_ever() -> None:
    end = drain(None)
    assert end.left() == math.inf
    assert end.has_room(1e12)


@pytest.mark.parametrize(
    ("ends_in", "kill_wait", "left"),
    [(None, 30, 28), (5000, 30, 28), (20, 30, 10), (None, 2, 0.5), (None, 0, 0.5), (None, 3.5, 1.5)],
)
def test_after_sigterm_there_is_what_slurm_waits_less_a_reserve(
    ends_in: float | None, kill_wait: float, left: float
) -> None:
    end = drain(ends_in, kill_wait=kill_wait)
    end.terminate()
    assert end.left() == pytest.approx(left)
    assert not end.has_room(0)
    assert end.reason
    assert "SIGTERM" in end.reason


def test_a_second_sigterm_gives_no_more_time() -> None:
    clock = Clock()
    end = Drain(Allocation(None, 0, 90, 30), clock)
    end.terminate()
    clock.now += 20
    end.terminate()
    assert end.left() == 8


@pytest.mark.parametrize(("ends_in", "closes"), [(None, True), (5000, True), (166, True), (165, False), (60, False)])
def test_usr2_near_the_time_limit_says_nothing_new(ends_in: float | None, closes: bool) -> None:
    end = drain(ends_in)
    end.warn()
    assert end.has_room(0) is not closes
    assert ("SIGUSR2" in str(end.reason)) is closes
    assert end.left() == (math.inf if ends_in is None else ends_in - 10), "a warning kills nobody"


def test_the_first_reason_stands() -> None:
    end = drain(100)
    assert not end.has_room(1000)
    end.terminate()
    end.warn()
    assert end.reason == TIME_LIMIT
    assert end.left() == 28
