"""Float64 numbers to a narrower dtype, rounded once: to nearest, ties to even, denormals kept.

    format = FORMATS[torch.bfloat16]                       # 8 digits, multiples of 2**-133
    round_once(mean, torch.bfloat16)                       # Tensor[n] of float64 -> Tensor[n] of bfloat16
    nearest(Fraction(1, 3), FORMATS[torch.float32])        # 0.3333333432674408

torch converts float64 to a 16-bit dtype by way of float32 and so rounds twice. Here the first step is a rounding to
odd, which keeps what the second needs to know (Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums:
proved algorithms using rounding to odd").
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from soupcli.late import torch

if TYPE_CHECKING:
    from torch import Tensor


_DROPPED = (1 << 29) - 1  # the fraction bits that float64 has and float32 has not
_SIGN = -(1 << 63)


class Format(NamedTuple):
    """The format of a floating dtype."""

    bits: torch.dtype  # the signed integer of the same size
    digits: int  # binary digits of a significand, the hidden one included
    smallest: float  # the smallest positive number, of which all are multiples
    least_normal: float
    largest: float
    magnitude: int  # mask of all bits but the sign
    not_finite: int  # the first magnitude, as an integer, that is an infinity or a NaN


def _format(dtype: torch.dtype, bits: torch.dtype) -> Format:
    info = torch.finfo(dtype)
    greatest = int(torch.tensor([info.max], dtype=torch.float64).to(dtype).view(bits).item())
    least = info.smallest_normal
    return Format(
        bits, 1 - round(math.log2(info.eps)), least * info.eps, least, info.max, torch.iinfo(bits).max, greatest + 1
    )


class _Formats(dict["torch.dtype", Format]):
    """Formats by dtype, each worked out when it is first asked for."""

    def __missing__(self, dtype: torch.dtype) -> Format:
        bits: torch.dtype = getattr(torch, f"int{8 * dtype.itemsize}")
        self[dtype] = _format(dtype, bits)
        return self[dtype]


FORMATS = _Formats()


def round_once(
    values: Tensor,
    dtype: torch.dtype,
    *,
    out: Tensor | None = None,
    scratch: Tensor | None = None,
    tiny: bool = True,
) -> Tensor:
    """`values`, Tensor of float64, in `dtype`: nearest, ties to even; `values` may be overwritten.

    `out` takes the result, `scratch` is int64 memory of the same shape. `tiny=False` says that none but zeros lie below
    the least normal number of `dtype`, which saves time.
    """
    out = torch.empty_like(values, dtype=dtype) if out is None else out
    if dtype.itemsize >= 4:
        return out.copy_(values)
    below = _rounded_below(values, FORMATS[dtype]) if tiny and dtype == torch.bfloat16 else None
    bits = values.view(torch.int64)
    sticky = torch.bitwise_and(bits, _DROPPED, out=scratch).add_(_DROPPED)  # carries into the lowest bit that is kept
    bits.bitwise_or_(sticky).bitwise_and_(~_DROPPED)
    if below is not None:
        torch.where(below.isnan(), values, below, out=values)
    return out.copy_(values)


def _rounded_below(values: Tensor, format_: Format) -> Tensor:
    """Round values below the least normal number to a multiple of the smallest; others become NaN.

    Adding a number whose last place is `smallest` rounds to its multiples; float32 could not hold such values to odd.
    """
    constant = 1.5 * 2.0**52 * format_.smallest
    rounded = torch.copysign((values + constant).sub_(constant), values)
    return torch.where(values.abs() < format_.least_normal, rounded, math.nan)


def round_pair(high: Tensor, low: Tensor, dtype: torch.dtype) -> Tensor:
    """The sums `high + low` of float64 in `dtype`, rounded once."""
    total, rest = two_sum(high, low)
    total = torch.where(low == 0, high, total)  # keeps the sign of a zero
    if dtype == torch.float64:
        return total
    bits = total.view(torch.int64)
    outward = (rest > 0) == (total > 0)
    to_odd = torch.where((rest != 0) & (bits & 1 == 0), torch.where(outward, 1, -1), 0)
    return round_once((bits + to_odd).view(torch.float64), dtype)


def two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a + b as a rounded sum and its error, exactly (Knuth, TAOCP 2, 4.2.2, theorem B)."""
    total = a + b
    b_part = total - a
    a_part = total - b_part
    return total, (a - a_part).add_(b - b_part)


def two_product(a: Tensor, b: float) -> tuple[Tensor, Tensor]:
    """a * b as a rounded product and its error, exactly if nothing over- or underflows (Dekker 1971)."""
    product = a * b
    a_high = _upper_half(a)
    a_low = a - a_high
    b_high = float(_upper_half(torch.tensor([b], dtype=torch.float64)).item())
    b_low = b - b_high
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, error


def _upper_half(a: Tensor) -> Tensor:
    """The upper 26 digits of float64 numbers (Veltkamp)."""
    scaled = a * 134217729.0  # 2**27 + 1
    return scaled - (scaled - a)


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
