"""Examples through a network in batches of one size, so that the result for each depends on no other example.

If memory runs out, the batch is halved and the run goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from soupcli import processes
from soupcli.errors import SoupError
from soupcli.late import torch
from soupcli.progress import unsaid

if TYPE_CHECKING:
    from torch import Tensor

# What torch says when it raises a plain RuntimeError: its CPU allocator, MPS, cuBLAS and cuDNN.
_NO_MEMORY = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")


SAME_KERNELS = 4  # examples: from so many on, most of the CPU's kernels for matrices round each example alike


class BatchSize:
    """The most examples that go through the network at once. It shrinks when memory runs out."""

    def __init__(self, most: int, *, say: Callable[[str], None] = unsaid) -> None:
        self.most = most
        self._least = SAME_KERNELS
        self._say = say

    def through(
        self, order: Tensor, work: Callable[[Tensor], Tensor], *, at_most: int | None = None, alike: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the indices of each batch and the result of `work` on them, Tensor [n, ...].

        Batches are as even as can be, and the last one is filled up with its last example: every example is computed
        in the same shape, whatever the order, so that kernels round it alike. Batches of inputs that are `alike` are
        filled up to SAME_KERNELS: smaller ones go through other kernels, and differ in the last digit.
        """
        begin, size, failed = 0, self.even(len(order), at_most), 0
        while begin < len(order):
            indices = order[begin : begin + size]
            full = self._filled(indices, size, len(order) if alike else 0)
            made = _tried(work, full)
            if made is None and len(full) > size:
                self._least = 1
                continue
            if made is None:
                self.most, failed = size // 2, failed or size
                size = self.even(len(order), at_most)
                continue
            if failed:
                self._say(f"memory ran out with {failed} examples at a time: the run goes on with {size}")
                failed = 0
            yield indices, made[: len(indices)]
            begin += size

    def shared_out(
        self, order: Tensor, work: Callable[[Tensor], Tensor], *, at_most: int | None = None, alike: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield what `through` yields, on the CPU, in every process. Each works on a part of the same batches."""
        size = self.even(len(order), at_most)

        def made(indices: Tensor) -> Tensor:
            full = self._filled(indices, size, len(order) if alike else 0)
            return self._in_halves(work, full)[: len(indices)].cpu()

        yield from processes.shared_out(torch.split(order, size), made)

    def _filled(self, indices: Tensor, size: int, alike: int) -> Tensor:
        """Return the indices, filled up to the size of a batch with the last one. `alike` is the number of examples."""
        wanted = max(size, min(self._least, alike))
        return torch.cat([indices, indices[-1:].expand(wanted - len(indices))])

    def _in_halves(self, work: Callable[[Tensor], Tensor], indices: Tensor) -> Tensor:
        """Work in halves, as small as memory requires."""
        made = _tried(work, indices)
        if made is not None:
            return made
        self._say(f"memory ran out with {len(indices)} examples at a time: the run goes on with fewer")
        return torch.cat([self._in_halves(work, half) for half in torch.tensor_split(indices, 2)])

    def even(self, examples: int, at_most: int | None = None) -> int:
        """Return the size of equal batches, as few as possible."""
        most = min(self.most, at_most or self.most)
        return -(-examples // -(-examples // most)) if examples else most


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error means that memory ran out, so that a smaller batch may work."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def _tried(work: Callable[[Tensor], Tensor], indices: Tensor) -> Tensor | None:
    """Return the result of `work`, or None if memory ran out. The attempt's memory is free by then."""
    try:
        return work(indices)
    except SoupError as error:
        if len(indices) == 1 or not is_out_of_memory(error.__cause__):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
