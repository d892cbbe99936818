"""One run in several processes, started by torchrun: the number of this process, and what all of them exchange.

    torchrun --nproc-per-node 4 -m soupcli greedy --ckpts runs/*/ --val val

All processes do the same in step. They take the same decisions from the same numbers, and share the examples of a set,
or each evaluates a checkpoint of its own. Only the first one prints, writes and keeps scores. With one process every
function here returns at once.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from soupcli.errors import ProcessError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
TIMEOUT = 1800.0  # seconds that a process waits for the others, e.g. while the first one decodes
_alone = False  # this process works by itself for a while


def started() -> int:
    """How many processes torchrun has started; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys() else 1


def number() -> int:
    """The number of this process, counted from 0."""
    return int(os.environ["RANK"]) if started() > 1 else 0


def local_number() -> int | None:
    """The number of this process on its machine, which is that of its device; None if it is the only one."""
    return int(os.environ.get("LOCAL_RANK", "0")) if started() > 1 else None


def on_this_machine() -> int:
    """How many processes of the run share this machine's memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if started() > 1 else 1


def is_first() -> bool:
    """Whether this process prints and writes."""
    return number() == 0


def count() -> int:
    """How many processes share the work at this moment."""
    return 1 if _alone else started()


def join() -> None:
    """Wait until the other processes have started. Raises ProcessError if one of them does not in time."""
    if started() == 1:
        return
    import torch
    from torch import distributed

    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device((local_number() or 0) % torch.cuda.device_count())
    with _errors():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=timedelta(seconds=_patience()))


def leave() -> None:
    """Leave the group that `join` entered."""
    if started() > 1:
        from torch import distributed

        if distributed.is_initialized():
            distributed.destroy_process_group()


_FAILED, _SAID = "soup/failed", "soup/said"
_LAST_WORDS = timedelta(seconds=5)  # for which the others wait: a launcher ends all when the first one has ended


def fails_first() -> bool:
    """Whether this process is the first one that ends with an error: the others' errors only follow from it.

    The others return after the first one has printed its error (`have_failed`), or has had time for it.
    """
    if started() == 1:
        return True
    from torch import distributed

    if not distributed.is_initialized():
        return is_first()
    try:
        store = distributed.distributed_c10d._get_default_store()
        if int(store.add(_FAILED, 1)) == 1:
            return True
        store.wait([_SAID], _LAST_WORDS)
    except RuntimeError:
        return True
    return False


def have_failed() -> None:
    """Let the other processes end, after the error was printed."""
    if started() > 1:
        from torch import distributed

        if distributed.is_initialized():
            with contextlib.suppress(RuntimeError):
                distributed.distributed_c10d._get_default_store().set(_SAID, "1")


def gathered(value: T) -> list[T]:
    """Return the values of all processes, in their order."""
    if count() == 1:
        return [value]
    from torch import distributed

    found: list[Any] = [None] * count()
    with _errors():
        distributed.all_gather_object(found, value)
    return found


def from_first(make: Callable[[], T]) -> T:
    """Return the first process's result in every process. Only the first one calls `make`."""
    if count() == 1:
        return make()
    from torch import distributed

    told: list[Any] = [make() if is_first() else None]
    with _errors():
        distributed.broadcast_object_list(told, src=0)
    made: T = told[0]
    return made


def from_each(tensor: Tensor) -> list[Tensor]:
    """The tensor of every process, in their order, on its own device; all are of one shape and dtype."""
    if count() == 1:
        return [tensor]
    import torch
    from torch import distributed

    parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(count())]
    with _errors():
        distributed.all_gather(parts, tensor.contiguous())
    return parts


def to_first(value: T) -> list[T]:
    """Return the values of all processes, in their order, in the first process, and [] in the others."""
    if count() == 1:
        return [value]
    from torch import distributed

    found: list[Any] | None = [None] * count() if is_first() else None
    with _errors():
        distributed.gather_object(value, found, dst=0)
    return found or []


def deals_out(items: int, parts: int) -> bool:
    """Whether it is faster if each process takes one item whole than if all share the `parts` of each item.

    One item for each process keeps all of them busy; with fewer items, those that have none would wait.
    """
    return items > 1 and parts <= items * -(-parts // count())


def rounds(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield the items in rounds, one item for each process."""
    yield from (items[begin : begin + count()] for begin in range(0, len(items), count()))


def own_item(of_round: Sequence[T]) -> T | None:
    """This process's item of a round, or None if there are fewer."""
    place = number() if count() > 1 else 0
    return of_round[place] if place < len(of_round) else None


def shared_out(items: Sequence[T], work: Callable[[T], Any]) -> Iterator[tuple[T, Any]]:
    """Yield every item with the result of `work` on it, in order. Each process works on its share, round by round."""
    for of_round in rounds(items):
        own = own_item(of_round)
        yield from zip(of_round, gathered(work(own) if own is not None else None), strict=False)


@contextmanager
def first_before_others() -> Iterator[None]:
    """Run the block in the first process, then in the others, which find the first one's results in the cache."""
    if not is_first():
        gathered(None)
    yield
    if is_first():
        gathered(None)


@contextmanager
def first_alone() -> Iterator[bool]:
    """Yield True in the first process, which waits for no other within the block. The others do nothing there."""
    with by_itself():
        yield is_first()


@contextmanager
def by_itself() -> Iterator[None]:
    """Let each process work by itself within the block, without waiting for others."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as cause:  # all that torch.distributed raises is of this class
        first_line = next(iter(str(cause).strip().splitlines()), "")
        raise ProcessError(
            f"process {number()} of {started()}: another ended, or did not answer in {_patience():g} s: {first_line}",
            hint="what was evaluated is kept, the same command goes on; SOUP_PROCESS_TIMEOUT=SECONDS waits longer",
        ) from cause


def _patience() -> float:
    word = os.environ.get("SOUP_PROCESS_TIMEOUT", str(TIMEOUT))
    try:
        seconds = float(word)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(
            f"SOUP_PROCESS_TIMEOUT={word}: expected seconds, more than 0", hint="e.g. SOUP_PROCESS_TIMEOUT=1800"
        )
    return seconds
