"""Work in threads that is all over when a block ends, well or badly."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any


class Tasks:
    """Tasks in threads that are all over when the block ends; one that fails ends the others."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._futures: list[Future[Any]] = []

    def submit(self, work: Callable[..., Any], *args: object) -> Future[Any]:
        """Begins `work(*args)`."""
        self._futures.append(self._pool.submit(work, *args))
        return self._futures[-1]

    def __enter__(self) -> Tasks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed = error is not None
        first: BaseException | None = None
        for future in self._futures:
            if failed:
                future.cancel()
            if not future.cancelled():
                cause = future.exception()
                failed, first = failed or cause is not None, first or cause
        if error is None and first is not None:
            raise first
