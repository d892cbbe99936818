"""Evaluations that run beside others: as many at once as there are jobs, started before they are asked for.

ahead = Ahead(jobs=4, work=evaluate)
ahead.expect(candidates)             # the first ones begin; those that are expected no longer are dropped
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
    """What `work` makes of items, `jobs` at once; it is given the number of the job, from 0 on."""

    def __init__(self, jobs: int, work: Callable[[Item, int], Made]) -> None:
        self._work = work
        self._pool = ThreadPoolExecutor(jobs)
        self._free: SimpleQueue[int] = SimpleQueue()
        for job in range(jobs):
            self._free.put(job)
        self._futures: dict[Item, Future[Made]] = {}

    def expect(self, items: Sequence[Item]) -> None:
        """Begins with these items, in their order. Others that have not begun are dropped."""
        for item, future in list(self._futures.items()):
            if item not in items and future.cancel():
                del self._futures[item]
        for item in items:
            if item not in self._futures:
                self._futures[item] = self._pool.submit(self._in_a_job, item)

    def has(self, item: Item) -> bool:
        """Whether the item was expected, and its result not taken yet."""
        return item in self._futures

    def result(self, item: Item) -> Made:
        """The result of the work on an expected item. Raises what the work raised."""
        return self._futures.pop(item).result()

    def close(self) -> None:
        """Drops all that has not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _in_a_job(self, item: Item) -> Made:
        job = self._free.get()
        try:
            return self._work(item, job)
        finally:
            self._free.put(job)
