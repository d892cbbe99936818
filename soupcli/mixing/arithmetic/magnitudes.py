"""Between which magnitudes stored numbers lie, from one pass over their bits; piece by piece if that is asked for.

bounds = Bounds.of(bits_rc, FORMATS[Dtype.FLOAT32], lambda range_: range_.grid > 2**-60)   # array[r, c], overwritten
bounds.whole                                                         # Range(largest=0.31, grid=2**-48)
bounds.piece(0)                                                      # of the first PIECE columns
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple

from soupcli.mixing.arithmetic.arrays import Array, library_of

if TYPE_CHECKING:
    from soupcli.mixing.arithmetic.float_format import Format

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
    def of(cls, bits_rc: Array, format_: Format, is_enough: Callable[[Range], bool]) -> Bounds:
        """The bounds of numbers by their bits, array[r, c] of `format_.bits`, which is overwritten.

        Where `is_enough` says so of the whole, pieces are left out.
        """
        xp = library_of(bits_rc)
        bits_rc &= format_.magnitude
        least, largest = int(xp.amin(bits_rc)), int(xp.amax(bits_rc))
        zeros = least == 0
        if zeros:
            bits_rc -= 1  # a zero becomes the largest, each other number one less
            bits_rc &= format_.magnitude
            least = int(xp.amin(bits_rc)) + 1
        whole = _range(format_, least, largest)
        if is_enough(whole):
            return cls(whole, (), zeros)
        lows, highs = _by_piece(xp.amin, bits_rc), _by_piece(xp.amax, bits_rc)
        if zeros:
            lows, highs = [low + 1 for low in lows], [min(high + 1, largest) for high in highs]
        return cls(whole, [_range(format_, *ends) for ends in zip(lows, highs, strict=True)], zeros)

    @classmethod
    def beside(cls, blocks: Sequence[tuple[Bounds, int]]) -> Bounds:
        """The bounds of blocks that lie side by side, each with its columns: whole pieces, but for the last block."""
        if len(blocks) == 1:
            return blocks[0][0]
        whole = reduce(Range.joined, (found.whole for found, _ in blocks))
        pieces = [found.piece(number) for found, columns in blocks for number in range(-(-columns // PIECE))]
        return cls(whole, pieces, any(found.zeros for found, _ in blocks))

    def piece(self, number: int) -> Range:
        """Return the bounds of one piece."""
        return self.pieces[number] if self.pieces else self.whole


def _range(format_: Format, least: int, largest: int) -> Range:
    """Of numbers whose bits lie between `least`, zeros aside, and `largest`."""
    hidden = 1 << (format_.digits - 1)
    if largest >= format_.not_finite:
        return Range(math.inf, 0.0)
    if largest == 0:
        return Range(0.0, math.inf)
    return Range(format_.value(largest), math.ldexp(format_.smallest, max(min(least, largest) // hidden - 1, 0)))


def _by_piece(reduced: Callable[..., Array], bits_rc: Array) -> list[int]:
    """Return a bound of each piece."""
    whole = bits_rc.shape[1] // PIECE * PIECE
    values: list[int] = []
    if whole:
        values += reduced(bits_rc[:, :whole].reshape(len(bits_rc), -1, PIECE), axis=(0, 2)).tolist()
    if whole < bits_rc.shape[1]:
        values.append(int(reduced(bits_rc[:, whole:])))
    return values
