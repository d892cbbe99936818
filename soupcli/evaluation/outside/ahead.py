"""Evaluations that run side by side, as many as there are jobs, started before their results are needed.

ahead = Ahead(jobs=4, work=evaluate)
ahead.expect(candidates)             # the first ones begin; others that have not begun are dropped
ahead.result(candidate)              # waits for it
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)
Made = TypeVar("Made")


class Ahead(Generic[Item, Made]):
    """Runs `work` on items, `jobs` at once. `work` gets an item and the number of its job, from 0."""

    def __init__(self, jobs: int, work: Callable[[Item, int], Made]) -> None:
        self._work = work
        self._pool = ThreadPoolExecutor(jobs)
        self._free: SimpleQueue[int] = SimpleQueue()
        for job in range(jobs):
            self._free.put(job)
        self._futures: dict[Item, Future[Made]] = {}

    def expect(self, items: Sequence[Item]) -> None:
        """Begin with these items, in order. Others that have not begun are dropped."""
        for item, future in list(self._futures.items()):
            if item not in items and future.cancel():
                del self._futures[item]
        for item in items:
            if item not in self._futures:
                self._futures[item] = self._pool.submit(self._in_a_job, item)

    def has(self, item: Item) -> bool:
        """Whether the item was expected and its result was not taken yet."""
        return item in self._futures

    def result(self, item: Item) -> Made:
        """Wait for the result of an expected item. Raises what the work raised."""
        return self._futures.pop(item).result()

    def close(self) -> None:
        """Drop all items that have not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _in_a_job(self, item: Item) -> Made:
        job = self._free.get()
        try:
            return self._work(item, job)
        finally:
            self._free.put(job)
