"""Floating formats: what the bits of a number mean, and the number of a format that is nearest to a fraction.

FORMATS[Dtype.BFLOAT16].digits                            # 8; all its numbers are multiples of 2**-133
nearest(Fraction(1, 3), FORMATS[Dtype.FLOAT32])           # 0.3333333432674408
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

from soupcli.checkpoints.dtype import Dtype


class Format(NamedTuple):
    """The format of a floating dtype: a sign, an exponent and a fraction, as in IEEE 754."""

    bits: str  # the signed integer of the same size, as numpy and torch name it: "int32"
    digits: int  # binary digits of a significand, the hidden one included
    smallest: float  # the smallest positive number, of which all are multiples
    least_normal: float
    largest: float
    magnitude: int  # mask of all bits but the sign
    not_finite: int  # the first magnitude, as an integer, that is an infinity or a NaN

    def value(self, magnitude: int) -> float:
        """Return the number whose bits are `magnitude`, which must be finite and positive."""
        exponent, fraction = divmod(magnitude, 1 << (self.digits - 1))
        significand = fraction + (1 << (self.digits - 1)) if exponent else fraction
        return math.ldexp(significand * self.smallest, max(exponent - 1, 0))


def _format(size: int, digits: int, *, not_finite: int | None = None) -> Format:
    """Return the format of `size` bits with an exponent of IEEE 754; `not_finite` where that has no infinity."""
    exponents = 1 << (size - digits)
    least_normal = 2.0 ** (2 - exponents // 2)
    beyond = (exponents - 1) << (digits - 1) if not_finite is None else not_finite
    smallest = math.ldexp(least_normal, 1 - digits)
    format_ = Format(f"int{size}", digits, smallest, least_normal, 0.0, (1 << (size - 1)) - 1, beyond)
    return format_._replace(largest=format_.value(beyond - 1))


FORMATS = {
    Dtype.FLOAT64: _format(64, 53),
    Dtype.FLOAT32: _format(32, 24),
    Dtype.FLOAT16: _format(16, 11),
    Dtype.BFLOAT16: _format(16, 8),
    Dtype.FLOAT8_E5M2: _format(8, 3),
    Dtype.FLOAT8_E4M3FN: _format(8, 4, not_finite=0x7F),  # it has NaNs and no infinity
}


def nearest(value: Fraction, format_: Format) -> float:
    """The number of the format nearest to `value`, ties to even; an infinity if it is beyond the largest."""
    if value == 0:
        return 0.0
    magnitude = abs(value)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if magnitude < Fraction(2) ** exponent:
        exponent -= 1
    place = max(exponent - format_.digits + 1, round(math.log2(format_.smallest)))
    count = round(magnitude / Fraction(2) ** place)
    rounded = math.inf if Fraction(2) ** place * count > format_.largest else math.ldexp(count, place)
    return math.copysign(rounded, 1 if value > 0 else -1)
