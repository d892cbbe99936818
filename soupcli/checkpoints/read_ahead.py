"""Reads tensors and checkpoints in the background before they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.files.reading import announce
from soupcli.late import torch

if TYPE_CHECKING:
    from torch import Tensor


Wanted = tuple[Checkpoint, str]
TOGETHER = 1 << 21  # bytes, at most, of small tensors that are read in one go: handing over costs more than they do


def read_ahead(wanted: Sequence[Wanted]) -> Iterator[tuple[str, Tensor]]:
    """Yield name and content of each tensor, in the stored dtype, on the CPU.

    At most two tensors are in memory, or twice TOGETHER bytes of smaller ones.
    """
    batches = list(_batches(wanted))
    if not batches:
        return
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(_read, batches[0])
        for batch, following in zip(batches, [*batches[1:], None], strict=True):
            tensors = coming.result()
            if following is not None:
                coming = reader.submit(_read, following)
            for _, name in batch:
                yield name, tensors.pop(0)


def _batches(wanted: Sequence[Wanted]) -> Iterator[list[Wanted]]:
    """Groups of tensors to read together: one tensor, or as many small ones as TOGETHER holds."""
    batch: list[Wanted] = []
    nbytes = 0
    for checkpoint, name in wanted:
        size = checkpoint.tensors[name].nbytes
        if batch and nbytes + size > TOGETHER:
            yield batch
            batch, nbytes = [], 0
        batch.append((checkpoint, name))
        nbytes += size
    if batch:
        yield batch


def _read(batch: Sequence[Wanted]) -> list[Tensor]:
    tensors: list[Tensor] = []
    for checkpoint, name in batch:
        spec = checkpoint.tensors[name]
        tensors.append(torch.empty(spec.shape, dtype=spec.dtype.torch))
        checkpoint.read(name, tensors[-1])
    return tensors


def announce_checkpoint(checkpoint: Checkpoint) -> None:
    """Ask the system to read the files of the next checkpoint in the background."""
    for file in checkpoint.files:
        announce(file)
