"""Between which magnitudes stored numbers lie, piece by piece, in two passes over their bits.

magnitudes = Magnitudes.of(numbers_rc, FORMATS[torch.float32])      # Tensor[r, c], which is overwritten
range_ = magnitudes.range_of(slice(None))                           # Range(largest=0.31, grid=2**-48)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from soupcli.checkpoints.rounding import Format

PIECE = 1 << 12  # columns


class Range(NamedTuple):
    """What bounds a set of numbers."""

    largest: float  # magnitude; infinite where one is not finite
    grid: float  # a power of two of which all are multiples; infinite where all are zero

    def joined(self, other: Range) -> Range:
        """What bounds both sets."""
        return Range(max(self.largest, other.largest), min(self.grid, other.grid))


class Magnitudes(NamedTuple):
    """The least and the largest magnitude of each piece of some columns, as integers."""

    format_: Format
    least: list[int]  # zeros aside; more than every number where all are zero
    largest: list[int]
    zeros: bool  # whether there are any

    @classmethod
    def of(cls, numbers_rc: Tensor, format_: Format) -> Magnitudes:
        """The magnitudes of numbers, which are overwritten."""
        bits_rc = numbers_rc.view(format_.bits).bitwise_and_(format_.magnitude)
        least, largest = _by_piece(torch.amin, bits_rc), _by_piece(torch.amax, bits_rc)
        zeros = min(least) == 0
        if zeros:
            bits_rc.sub_(1).bitwise_and_(format_.magnitude)  # a zero becomes the largest
            least = [bits + 1 for bits in _by_piece(torch.amin, bits_rc)]
        return cls(format_, least, largest, zeros)

    def range_of(self, pieces: slice) -> Range:
        """What bounds the numbers of these pieces."""
        least, largest = min(self.least[pieces]), max(self.largest[pieces])
        smallest, hidden = self.format_.smallest, 1 << (self.format_.digits - 1)
        if largest >= self.format_.not_finite:
            return Range(math.inf, 0.0)
        if largest == 0:
            return Range(0.0, math.inf)
        exponent, fraction = divmod(largest, hidden)
        significand = fraction + hidden if exponent else fraction
        return Range(
            math.ldexp(significand * smallest, max(exponent - 1, 0)),
            math.ldexp(smallest, max(least // hidden - 1, 0)),
        )


def _by_piece(reduce: Callable[..., Tensor], bits_rc: Tensor) -> list[int]:
    whole = bits_rc.shape[1] // PIECE * PIECE
    values: list[int] = []
    if whole:
        values += reduce(bits_rc[:, :whole].view(len(bits_rc), -1, PIECE), dim=(0, 2)).tolist()
    if whole < bits_rc.shape[1]:
        values.append(int(reduce(bits_rc[:, whole:], dim=(0, 1))))
    return values
