"""Between which magnitudes stored numbers lie, from one pass over their bits; piece by piece if that is asked for.

spread = Spread.of(numbers_rc, FORMATS[torch.float32], lambda range_: range_.grid > 2**-60)  # Tensor[r, c], overwritten
spread.whole                                                         # Range(largest=0.31, grid=2**-48)
spread.piece(0)                                                      # of the first PIECE columns
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from soupcli.late import torch

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.mixing.arithmetic.rounding import Format

PIECE = 1 << 12  # columns


class Range(NamedTuple):
    """The bounds of a set of numbers."""

    largest: float  # magnitude; infinite if one is not finite
    grid: float  # a power of two of which all are multiples; infinite if all are zero

    def joined(self, other: Range) -> Range:
        """Return the bounds of both sets."""
        return Range(max(self.largest, other.largest), min(self.grid, other.grid))


class Bounds(NamedTuple):
    """The bounds of the numbers in some columns, and of each piece of them if the whole was not narrow enough."""

    whole: Range
    pieces: Sequence[Range]  # none if the whole was
    zeros: bool  # whether there are any

    @classmethod
    def of(cls, numbers_rc: Tensor, format_: Format, is_enough: Callable[[Range], bool]) -> Bounds:
        """The spread of numbers, which are overwritten. Where `is_enough` says so of the whole, pieces are left out."""
        bits_rc = numbers_rc.view(format_.bits).bitwise_and_(format_.magnitude)
        least, largest = torch.stack(torch.aminmax(bits_rc)).tolist()
        zeros = least == 0
        if zeros:
            bits_rc.sub_(1).bitwise_and_(format_.magnitude)  # a zero becomes the largest, each other number one less
            least = int(bits_rc.amin()) + 1
        whole = _range(format_, least, largest)
        if is_enough(whole):
            return cls(whole, (), zeros)
        lows, highs = _by_piece(torch.amin, bits_rc), _by_piece(torch.amax, bits_rc)
        if zeros:
            lows, highs = [low + 1 for low in lows], [min(high + 1, largest) for high in highs]
        return cls(whole, [_range(format_, *ends) for ends in zip(lows, highs, strict=True)], zeros)

    def piece(self, number: int) -> Range:
        """Return the bounds of one piece."""
        return self.pieces[number] if self.pieces else self.whole


def _range(format_: Format, least: int, largest: int) -> Range:
    """Of numbers whose bits lie between `least`, zeros aside, and `largest`."""
    smallest, hidden = format_.smallest, 1 << (format_.digits - 1)
    if largest >= format_.not_finite:
        return Range(math.inf, 0.0)
    if largest == 0:
        return Range(0.0, math.inf)
    exponent, fraction = divmod(largest, hidden)
    significand = fraction + hidden if exponent else fraction
    return Range(
        math.ldexp(significand * smallest, max(exponent - 1, 0)),
        math.ldexp(smallest, max(min(least, largest) // hidden - 1, 0)),
    )


def _by_piece(reduce: Callable[..., Tensor], bits_rc: Tensor) -> list[int]:
    whole = bits_rc.shape[1] // PIECE * PIECE
    values: list[int] = []
    if whole:
        values += reduce(bits_rc[:, :whole].view(len(bits_rc), -1, PIECE), dim=(0, 2)).tolist()
    if whole < bits_rc.shape[1]:
        values.append(int(reduce(bits_rc[:, whole:], dim=(0, 1))))
    return values
