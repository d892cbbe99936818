"""Work in threads: every item once, the first error, nothing left running when the call ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from soupcli.threads import WAITING, each, in_threads


def test_every_piece_once() -> None:
    """Each piece is worked on once, whatever the number of threads."""
    for threads in (1, 2, 5):
        assert sorted(in_threads(lambda: lambda piece: piece * 2, range(50), threads=threads)) == list(range(0, 100, 2))


def test_a_tool_for_each_thread() -> None:
    """No tool is used by two threads."""
    users: dict[int, set[int]] = {}

    def make() -> Callable[[int], int]:
        mine: set[int] = set()
        users[id(mine)] = mine

        def tool(piece: int) -> int:
            mine.add(threading.get_ident())
            return piece

        return tool

    list(in_threads(make, range(100), threads=3))
    assert len(users) == 3 and all(len(threads) <= 1 for threads in users.values())


def test_few_pieces_at_a_time() -> None:
    """Pieces are asked for as their results are taken: memory grows with neither, however slow the taker is."""
    asked, done = 0, 0

    def pieces() -> Iterator[int]:
        nonlocal asked
        for number in range(60):
            asked += 1
            yield number

    for _ in in_threads(lambda: lambda piece: piece, pieces(), threads=2):
        time.sleep(0.002)
        done += 1
        assert asked - done <= 2 + 2 * WAITING
    assert (asked, done) == (60, 60)


def test_a_taker_that_ends_early() -> None:
    """Threads that wait for their results to be taken end when nobody takes them any more."""
    results = in_threads(lambda: lambda piece: piece, range(100), threads=3)
    next(results)
    time.sleep(0.02)
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mix-")]


@pytest.mark.parametrize("where", ["tool", "make", "pieces"])
def test_errors(where: str) -> None:
    """An error of a tool, of its making and of the stream is raised where results are taken; all threads have ended."""

    def tool(piece: int) -> int:
        if where == "tool":
            raise ValueError(where)
        return piece

    def make() -> Callable[[int], int]:
        if where == "make":
            raise ValueError(where)
        return tool

    def pieces() -> Iterator[int]:
        yield 1
        if where == "pieces":
            raise ValueError(where)
        yield from range(8)

    computing = torch.get_num_threads()
    with pytest.raises(ValueError, match=where):
        list(in_threads(make, pieces(), threads=2))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mix-")]
    assert torch.get_num_threads() == computing


def test_every_item_in_order() -> None:
    """Results of a pool come in the order of the items, however many threads there are; no items need none."""
    with ThreadPoolExecutor(3) as pool:
        for threads in (1, 2, 3):
            for count in (0, 1, 2, 50):
                assert each(pool, threads, lambda item: item * 2, range(count)) == [2 * n for n in range(count)]


def test_first_error_of_a_pool() -> None:
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


def test_the_error_of_the_first_item() -> None:
    """Of several errors the one of the first item is raised, however long that item takes."""
    later = threading.Event()

    def work(item: int) -> int:
        if item == 2:
            assert later.wait(10)
        if item >= 2:
            later.set()
            raise ValueError(item)
        return item

    with pytest.raises(ValueError, match=r"^2$"):
        list(in_threads(lambda: work, range(100), threads=3))
