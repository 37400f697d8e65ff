from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from hpcjobs.merge.prefetch import ahead


def test_all_items_come_in_order_from_one_other_thread() -> None:
    threads = set()

    def items() -> Iterator[int | None]:
        for number in range(100):
            threads.add(threading.current_thread())
            yield number or None

    assert list(ahead(items())) == [None, *range(1, 100)]
    assert len(threads) == 1
    assert threading.current_thread() not in threads


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_next_one_is_made_meanwhile_and_no_more(count: int) -> None:
    made = [threading.Event() for _ in range(5)]

    def items() -> Iterator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    found = ahead(items())
    for number in range(count):
        assert next(found) == number
        assert made[number + 1].wait(10)
    assert not any(event.is_set() for event in made[count + 1 if count else 0 :])
    found.close()  # type: ignore[attr-defined]
    assert threading.active_count() == 1 or not any("ThreadPool" in thread.name for thread in threading.enumerate())


def test_what_the_items_raise_comes_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    found = ahead(items())
    assert next(found) == 1
    with pytest.raises(ValueError, match="broken"):
        next(found)
