"""The same work on many items, in the threads of a pool; all of it is over when the call ends, well or badly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


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
