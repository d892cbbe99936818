"""A few threads that work on one stream of pieces, each with tools of its own; results come as they are done.

    for nbytes in in_threads(make_tool, pieces):
        ...

At most one piece a thread is under way, so memory does not grow with the number of pieces. The first error ends all.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

import torch

Piece = TypeVar("Piece")
Result = TypeVar("Result")

MIN_THREADS, MAX_THREADS = 2, 16  # one reads while another computes; more than there are cores are in each other's way


def in_threads(
    make_tool: Callable[[], Callable[[Piece], Result]], pieces: Iterable[Piece], *, threads: int | None = None
) -> Iterator[Result]:
    """The result of a tool on each piece, in the order in which they are done.

    Each thread makes a tool with `make_tool`; torch computes with one thread in each. Raises what a tool raises, after
    all threads have ended.
    """
    todo, lock, stop = iter(pieces), threading.Lock(), threading.Event()
    results: SimpleQueue[tuple[Result] | BaseException | None] = SimpleQueue()

    def work() -> None:
        try:
            torch.set_num_threads(1)
            tool = make_tool()
            while not stop.is_set():
                with lock:
                    piece = next(todo, None)
                if piece is None:
                    break
                results.put((tool(piece),))
        except BaseException as error:  # noqa: BLE001 - it is raised again where the results are taken
            results.put(error)
        finally:
            results.put(None)

    computing = torch.get_num_threads()
    count = threads or min(max(os.cpu_count() or 1, MIN_THREADS), MAX_THREADS)
    workers = [threading.Thread(target=work, name=f"mix-{number}", daemon=True) for number in range(count)]
    for worker in workers:
        worker.start()
    try:
        while count:
            result = results.get()
            if result is None:
                count -= 1
            elif isinstance(result, BaseException):
                raise result
            else:
                yield result[0]
    finally:
        stop.set()
        for worker in workers:
            worker.join()
        torch.set_num_threads(computing)


Item = TypeVar("Item")


def each(pool: ThreadPoolExecutor, threads: int, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """What `work` makes of each item, in their order; so many threads take one item after another.

    Raises the first error, when no thread works any more.
    """
    todo, lock, stop = iter(enumerate(items)), threading.Lock(), threading.Event()
    found: dict[int, Result] = {}

    def take() -> None:
        while not stop.is_set():
            with lock:
                place, item = next(todo, (None, None))
            if place is None or item is None:
                return
            try:
                found[place] = work(item)
            except BaseException:
                stop.set()
                raise

    futures = [pool.submit(take) for _ in range(min(threads, len(items)))]
    try:
        errors = [future.exception() for future in futures]
    except BaseException:
        stop.set()
        for future in futures:
            future.exception()
        raise
    for error in errors:
        if error is not None:
            raise error
    return [found[place] for place in range(len(items))]
