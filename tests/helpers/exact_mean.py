"""What tests of arithmetic share: exact means in fractions, rounded by looking at all numbers; tensors in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from soupcli.checkpoints.checkpoint import BARE, NO_PLACES, Origin, TensorSpec
from soupcli.checkpoints.dtype import Dtype

BITS = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float8_e4m3fn: torch.int8,
    torch.float8_e5m2: torch.int8,
}


class InMemory:
    """A checkpoint whose tensors lie in memory, for properties that are tried on many tensors."""

    def __init__(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        self.path, self.folder = Path(name), Path()
        self.stored = tensors
        self.tensors = {key: TensorSpec(tuple(tensor.shape), Dtype.of(tensor.dtype)) for key, tensor in tensors.items()}
        self.files: tuple[()] = ()
        self.side_files: tuple[()] = ()
        self.side_folder: Path | None = None
        self.origin: Origin = BARE
        self.sources: tuple[()] = ()
        self.members: tuple[()] = ()
        self.own, self.taken = self, ()
        self.is_adapter = False
        self.adapted: frozenset[str] = frozenset()
        self.inherited: frozenset[str] = frozenset()
        self.places = NO_PLACES
        self.parts: tuple[()] = ()
        self.constants: frozenset[str] = frozenset()

    def read(self, name: str, out: Tensor, *, start: int = 0) -> None:
        """See Checkpoint.read."""
        flat = self.stored[name].reshape(-1)
        out.view(-1).copy_(flat[start : start + out.numel()])


def weighted(values: Sequence[float], weights: Sequence[float] | None = None) -> Fraction:
    """The exact mean of floats, with `weights` their exact weighted sum."""
    if weights is None:
        return sum(map(Fraction, values), Fraction()) / len(values)
    return sum((Fraction(w) * Fraction(v) for v, w in zip(values, weights, strict=True)), Fraction())


def rounded(exact: Fraction, dtype: torch.dtype) -> int:
    """The bits of the number of `dtype` nearest to `exact`, ties to even; found among all magnitudes by bisection."""
    magnitude, sign_bit = abs(exact), 1 << (dtype.itemsize * 8 - 1)
    low, high = 0, sign_bit - 1
    while high - low > 1:  # the largest magnitude that is at most the exact one
        middle = (low + high) // 2
        value = value_of(middle, dtype)
        if value == value and value <= magnitude:
            low = middle
        else:
            high = middle
    below, above = value_of(low, dtype), value_of(low + 1, dtype)
    if above == above and above != float("inf"):
        down, up = magnitude - Fraction(below), Fraction(above) - magnitude
        low += int(up < down or (up == down and low % 2 == 1))
    return low - sign_bit if exact < 0 else low


def value_of(bits: int, dtype: torch.dtype) -> float:
    """The number that these bits of a positive number stand for."""
    return float(torch.tensor([bits], dtype=BITS[dtype]).view(dtype).to(torch.float64))
