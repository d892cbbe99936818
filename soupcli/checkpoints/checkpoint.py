"""What every checkpoint is, whatever its format: named tensors that are read one at a time.

checkpoint = open_checkpoint(Path("runs/a"))
spec = checkpoint.tensors["head.weight"]                   # TensorSpec(shape=(10, 64), dtype=torch.float32)
checkpoint.read("head.weight", torch.empty(spec.shape, dtype=spec.dtype))
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from soupcli.checkpoints.files import FileVersion, read_at


class TensorSpec(NamedTuple):
    """What a header says about one tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements, stored densely."""
        return self.numel * self.dtype.itemsize


class Checkpoint(Protocol):
    """One ingredient: any format, opened by its header."""

    @property
    def path(self) -> Path:
        """As the user gave it."""

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """Name to shape and dtype, from the header alone."""

    @property
    def files(self) -> tuple[FileVersion, ...]:
        """The files that hold the weights."""

    @property
    def side_files(self) -> tuple[Path, ...]:
        """Configuration and tokenizer files beside the weights, which a soup carries on."""

    def read(self, name: str, out: Tensor, *, start: int = 0) -> None:
        """Reads `out.numel()` elements of tensor `name`, from element `start` in row-major order, into `out`.

        `out` is contiguous, on the CPU and of the stored dtype. Raises CheckpointError where the file has changed
        since it was opened or ends early.
        """


class StoredTensor(NamedTuple):
    """Where the elements of one tensor lie: `file`, first byte, and strides in elements (None: dense, row-major)."""

    file: FileVersion
    offset: int
    strides: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class StoredCheckpoint:
    """A checkpoint whose tensors lie uncompressed in files: safetensors, shards, torch archives."""

    path: Path
    tensors: Mapping[str, TensorSpec]
    places: Mapping[str, StoredTensor]
    files: tuple[FileVersion, ...]
    side_files: tuple[Path, ...] = ()

    def read(self, name: str, out: Tensor, *, start: int = 0) -> None:
        """See Checkpoint.read."""
        spec, place = self.tensors[name], self.places[name]
        if place.strides is None:
            read_at(place.file, place.offset + start * spec.dtype.itemsize, out)
            return
        extent = 1 + sum((size - 1) * stride for size, stride in zip(spec.shape, place.strides, strict=True))
        stored = torch.empty(extent, dtype=spec.dtype)
        read_at(place.file, place.offset, stored)
        dense = stored.as_strided(spec.shape, place.strides).reshape(-1)
        out.view(-1).copy_(dense[start : start + out.numel()])


def total_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of the files that hold the weights."""
    return sum(file.size for file in checkpoint.files)
