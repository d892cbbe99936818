"""Tensors of checkpoints one after another; while one is used, the next is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from soupcli.checkpoints.checkpoint import Checkpoint


def read_ahead(wanted: Sequence[tuple[Checkpoint, str]]) -> Iterator[tuple[str, Tensor]]:
    """Name and content of each tensor, in the stored dtype, on the CPU; two of them in memory at a time."""
    if not wanted:
        return
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(_read, *wanted[0])
        for (_, name), following in zip(wanted, [*wanted[1:], None], strict=True):
            tensor = coming.result()
            if following is not None:
                coming = reader.submit(_read, *following)
            yield name, tensor


def _read(checkpoint: Checkpoint, name: str) -> Tensor:
    spec = checkpoint.tensors[name]
    tensor = torch.empty(spec.shape, dtype=spec.dtype)
    checkpoint.read(name, tensor)
    return tensor
