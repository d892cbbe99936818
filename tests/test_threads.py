"""Threads over one stream of pieces: all results, the first error, nothing left running."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import torch

from soupcli.threads import in_threads


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
    """Pieces are asked for as they are worked on: memory does not grow with their number."""
    asked, done = 0, 0

    def pieces() -> Iterator[int]:
        nonlocal asked
        for number in range(60):
            asked += 1
            assert asked - done <= 3 + 60  # results may wait; work may not run ahead of the threads
            yield number

    for _ in in_threads(lambda: lambda piece: piece, pieces(), threads=2):
        done += 1
    assert (asked, done) == (60, 60)


@pytest.mark.parametrize("where", ["tool", "make", "pieces"])
def test_errors(where: str) -> None:
    """An error of a tool, of its making and of the stream is raised where results are taken; all threads have ended."""

    def fail(*_: object) -> int:
        raise ValueError(where)

    def pieces() -> Iterator[int]:
        yield 1
        raise ValueError(where)

    work = {
        "tool": lambda: list(in_threads(lambda: fail, range(9), threads=2)),
        "make": lambda: list(in_threads(fail, range(9), threads=2)),
        "pieces": lambda: list(in_threads(lambda: lambda piece: piece, pieces(), threads=2)),
    }[where]
    computing = torch.get_num_threads()
    with pytest.raises(ValueError, match=where):
        work()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mix-")]
    assert torch.get_num_threads() == computing
