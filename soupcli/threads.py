"""A few threads that work on one stream of items, each thread with a tool of its own.

    for nbytes in in_threads(make_tool, pieces):       # results as they are done
        ...
    rows = each(pool, 4, work, items)                  # results in the order of the items

Each thread works on at most one item, and WAITING results of each may wait to be taken, so memory does not grow with
the number of items. The first error ends all.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from queue import SimpleQueue
from typing import TypeVar

from soupcli.late import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

WAITING = 2  # results of each thread that nobody has taken yet; with more the threads wait
MIN_THREADS, MAX_THREADS = 2, 16  # one reads while another computes; more than there are cores are in each other's way


def in_threads(
    make_tool: Callable[[], Callable[[Item], Result]], items: Iterable[Item], *, threads: int | None = None
) -> Generator[Result, None, None]:
    """Yield the result of a tool on each item, in the order in which they are done.

    Each thread makes a tool with `make_tool`; torch, if it was imported, computes with one thread in each. Raises what
    a tool raises, after all threads have ended.
    """
    count = threads or min(max(os.cpu_count() or 1, MIN_THREADS), MAX_THREADS)
    if "torch" not in sys.modules:
        with ThreadPoolExecutor(count, "mix") as pool:
            yield from _results(pool, count, make_tool, items)
        return
    computing = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(count, "mix", initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from _results(pool, count, make_tool, items)
    finally:
        torch.set_num_threads(computing)


def each(pool: ThreadPoolExecutor, threads: int, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return the result of `work` on each item, in order. `threads` threads take one item after another.

    Raises the first error, when no thread works any more.
    """

    def numbered(item: tuple[int, Item]) -> tuple[int, Result]:
        return item[0], work(item[1])

    found = dict(_results(pool, min(threads, len(items)), lambda: numbered, enumerate(items)))
    return [found[place] for place in range(len(items))]


def _results(
    pool: ThreadPoolExecutor, threads: int, make_tool: Callable[[], Callable[[Item], Result]], items: Iterable[Item]
) -> Iterator[Result]:
    """Yield results as they are done. When this ends, in whatever way, no thread of the pool works on `items`.

    Raises the error of the first item that has one: those before it were begun earlier, and are waited for.
    """
    todo, lock, stop = enumerate(items), threading.Lock(), threading.Event()
    results: SimpleQueue[tuple[Result] | None] = SimpleQueue()
    room = threading.Semaphore(WAITING * threads)
    errors: dict[int, BaseException] = {}

    def take() -> None:
        number = -1
        try:
            tool = make_tool()
            while not stop.is_set():
                with lock:
                    following = next(todo, None)
                if following is None:
                    break
                number = following[0]
                result = tool(following[1])
                room.acquire()
                results.put((result,))
        except BaseException as error:  # noqa: BLE001 - it is raised again where the results are taken
            stop.set()
            errors[number] = error
        finally:
            results.put(None)

    futures = [pool.submit(take) for _ in range(threads)]
    try:
        while threads:
            result = results.get()
            if result is None:
                threads -= 1
                continue
            room.release()
            if not errors:
                yield result[0]
    finally:
        stop.set()
        room.release(len(futures) + 1)  # whoever waits for room goes on, and ends
        wait(futures)
    if errors:
        raise errors[min(errors)]
