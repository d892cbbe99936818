"""Work in the threads of a pool: every item once, in order, and nothing under way when the call ends."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from soupcli.threads import each


def test_every_item_once() -> None:
    """Results come in the order of the items, however many threads there are; none are needed for nothing."""
    with ThreadPoolExecutor(3) as pool:
        for threads in (1, 2, 3):
            for count in (0, 1, 2, 50):
                assert each(pool, threads, lambda item: item * 2, range(count)) == [2 * n for n in range(count)]


def test_first_error() -> None:
    """An error ends the rest: it is raised when all threads have stopped, and what was not begun is left."""
    begun: list[int] = []
    other = threading.Event()

    def work(item: int) -> None:
        begun.append(item)
        if item == 0:
            other.wait(10)
            raise ValueError("the first")
        other.set()
        if item > 1:
            threading.Event().wait(0.001)

    with ThreadPoolExecutor(2) as pool, pytest.raises(ValueError, match="the first"):
        each(pool, 2, work, range(100_000))
    assert len(begun) < 100_000
