"""Tensors of kept scores as text. They stay bytes until they are used, so a score is read without torch.

kept = packed(outcome_n)                              # ["uint8", [50000], "eJzt..."], for JSON
stored = Packed.of(*kept)                             # checked: as many bytes as its shape says
stored.tensor()                                       # Tensor[50000]
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from soupcli.checkpoints.dtype import Dtype
from soupcli.files.reading import memory_of
from soupcli.late import torch

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 1 << 26  # bytes of all tensors of a score: eight million examples in float64
_DTYPES = {dtype.value: dtype for dtype in (Dtype.UINT8, Dtype.INT64, Dtype.FLOAT32, Dtype.FLOAT64)}


def packed(tensor: Tensor | Packed) -> list[Any]:
    """Return dtype, shape and compressed bytes, for JSON."""
    if isinstance(tensor, Packed):
        return [tensor.dtype.value, list(tensor.shape), _text(tensor.raw)]
    dense = tensor.contiguous()  # it owns the memory
    return [Dtype.of(dense.dtype).value, list(dense.shape), _text(bytes(memory_of(dense)))]


def _text(raw: bytes | bytearray) -> str:
    return base64.b64encode(zlib.compress(raw)).decode()


@dataclass(frozen=True)
class Packed:
    """A tensor that is not unpacked yet."""

    dtype: Dtype
    shape: tuple[int, ...]
    raw: bytearray

    @classmethod
    def of(cls, name: str, shape: list[int], data: str) -> Packed:
        """Read the result of `packed`. Its size is checked before it is unpacked.

        Raises ValueError, TypeError, LookupError or zlib.error for anything else.
        """
        dtype, nbytes = _DTYPES[name], size_of(name, shape)
        if nbytes > LARGEST:
            raise ValueError(f"{nbytes} bytes")
        unpacking = zlib.decompressobj()
        raw = bytearray(unpacking.decompress(base64.b64decode(data, validate=True), nbytes + 1))
        if len(raw) != nbytes or not unpacking.eof:
            raise ValueError("another size than its shape says")
        return cls(dtype, tuple(shape), raw)

    def tensor(self) -> Tensor:
        """Return the tensor."""
        if not self.raw:
            return torch.empty(self.shape, dtype=self.dtype.torch)
        return torch.frombuffer(self.raw, dtype=self.dtype.torch).reshape(self.shape)


def size_of(name: str, shape: list[int], _data: object = None) -> int:
    """Return the bytes of a tensor that `packed` wrote, before it is unpacked. Raises what `Packed.of` raises."""
    return math.prod(map(count, shape)) * _DTYPES[name].itemsize


def count(value: Any) -> int:
    """Return the value. Raises ValueError unless it is a count."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("not a count")
    return value


class Outcomes(Mapping[str, "Tensor"]):
    """The outcomes of a kept score by metric. Each becomes a tensor when it is used."""

    def __init__(self, kept: Mapping[str, Packed]) -> None:
        self.kept = kept
        self._tensors: dict[str, Tensor] = {}

    def __getitem__(self, metric: str) -> Tensor:
        if metric not in self._tensors:
            self._tensors[metric] = self.kept[metric].tensor()
        return self._tensors[metric]

    def __iter__(self) -> Iterator[str]:
        return iter(self.kept)

    def __len__(self) -> int:
        return len(self.kept)
