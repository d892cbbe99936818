"""Float64 numbers to a narrower dtype, rounded once, and sums and products with their errors.

    round_once(means, Dtype.BFLOAT16)                      # array[n] of float64 -> array[n] of int16, its bits
    widen(stored, Dtype.BFLOAT16, out=numbers)             # and back

Arrays are of numpy or torch. numpy knows neither bfloat16 nor 8-bit dtypes: HELD_AS says which integers hold the bits.
torch would convert float64 to a 16-bit dtype by way of float32, and so round twice.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import TYPE_CHECKING

from soupcli.checkpoints.dtype import Dtype
from soupcli.mixing.arithmetic.arrays import Array, Library, cast, is_torch, library_of, quiet
from soupcli.mixing.arithmetic.float_format import FORMATS, Format

if TYPE_CHECKING:
    import torch
    from torch import Tensor

HELD_AS = {
    Dtype.FLOAT64: "float64",
    Dtype.FLOAT32: "float32",
    Dtype.FLOAT16: "float16",
    Dtype.BFLOAT16: "int16",
    Dtype.FLOAT8_E5M2: "int8",
    Dtype.FLOAT8_E4M3FN: "int8",
}


def bits_of(held: Array, dtype: Dtype) -> Array:
    """Return the same memory as signed integers, by which finite numbers of one sign are ordered."""
    return held.view(getattr(library_of(held), FORMATS[dtype].bits))


def widen(stored: Array, dtype: Dtype, *, out: Array) -> None:
    """Fill `out`, array of float64 or float32, with the numbers of a dtype, held as HELD_AS says, of the same shape."""
    xp = library_of(stored)
    if is_torch(xp):
        out.copy_(stored.view(dtype.torch))
        return
    if dtype is Dtype.BFLOAT16:
        numbers = _as_float32(out)
        bits = numbers.view(xp.int32)
        bits[...] = stored
        bits <<= 16  # the upper half of a float32
        stored = numbers
    elif dtype.itemsize == 1:
        stored = _numbers_of(dtype, xp, "")[cast(stored, "int64") & 0xFF]
    if stored is not out:
        with quiet(xp):
            out[...] = stored


def _as_float32(out: Array) -> Array:
    """Return `out`, or new memory of its shape if its numbers are wider."""
    xp = library_of(out)
    return out if out.dtype == xp.float32 else xp.empty(out.shape, dtype=xp.float32)


def wide(stored: Array, dtype: Dtype) -> Array:
    """Return the numbers of a dtype, held as HELD_AS says, in new memory: array of float64."""
    xp = library_of(stored)
    found = xp.empty(stored.shape, dtype=xp.float64)
    widen(stored, dtype.real, out=found)
    return found


def widen_scaled(stored: Array, dtype: Dtype, *, out: Array) -> float:
    """As `widen`, but for the power of two that is returned, by which `out` must be multiplied.

    numpy converts float16 number by number; this moves the bits of many at once to their places in a float32, whose
    exponent has another bias. Infinities and NaNs become other numbers.
    """
    xp = library_of(stored)
    if dtype is not Dtype.FLOAT16 or is_torch(xp):
        widen(stored, dtype, out=out)
        return 1.0
    numbers = _as_float32(out)
    bits = numbers.view(xp.int32)
    bits[...] = stored.view(xp.int16)
    bits <<= 13  # exponent and fraction to their places, behind copies of the sign
    bits &= -0x70000001  # of which one stays
    if numbers is not out:
        out[...] = numbers
    return 2.0**112


def round_once(
    values: Array, dtype: Dtype, *, out: Array | None = None, scratch: Array | None = None, tiny: bool = True
) -> Array:
    """`values`, array of float64, in `dtype`, held as HELD_AS says: nearest, ties to even, denormals kept.

    `values` may be overwritten. `out` takes the result, `scratch` is int64 memory of the same shape. `tiny=False` says
    that none but zeros lie below the least normal number of `dtype`, which saves time. What is too large becomes an
    infinity, or a NaN where there is none.
    """
    xp = library_of(values)
    out = xp.empty_like(values, dtype=getattr(xp, HELD_AS[dtype])) if out is None else out
    if dtype.itemsize <= 2:
        _round_to(values, FORMATS[dtype], scratch, tiny)
    with quiet(xp):
        if dtype is Dtype.BFLOAT16:
            bits = cast(values, "float32").view(xp.int32)
            bits >>= 16
            out[...] = bits
        elif dtype.itemsize == 1:
            finite = _numbers_of(dtype, xp, str(getattr(values, "device", "")))[: FORMATS[dtype].not_finite]
            out[...] = xp.searchsorted(finite, xp.abs(values)) - 128 * cast(xp.signbit(values), "int64")
        else:
            out[...] = values
    return out


def _round_to(values: Array, format_: Format, scratch: Array | None, tiny: bool) -> None:
    """Round in place to the digits of the format: float64 holds all its numbers."""
    xp = library_of(values)
    dropped = 53 - format_.digits
    bits = values.view(xp.int64)
    last = xp.empty_like(bits) if scratch is None else scratch
    last[...] = bits
    are_below = below = None
    if tiny:
        last &= (1 << 63) - 1
        are_below = last < struct.unpack("<q", struct.pack("<d", format_.least_normal))[0]
        below = _rounded_below(values[are_below], format_)
        last[...] = bits
    last >>= dropped
    last &= 1  # the lowest bit that is kept decides a tie
    last += (1 << (dropped - 1)) - 1
    bits += last  # carries into the bits that are kept, and the exponent
    bits &= -(1 << dropped)
    if are_below is not None:
        values[are_below] = below


def _rounded_below(values: Array, format_: Format) -> Array:
    """Round values below the least normal number to a multiple of the smallest.

    Adding a number whose last place is `smallest` rounds to its multiples.
    """
    constant = 1.5 * 2.0**52 * format_.smallest
    return library_of(values).copysign((values + constant) - constant, values)


@cache
def _numbers_of(dtype: Dtype, xp: Library, device: str) -> Array:
    """The numbers of an 8-bit dtype by their bits: array[256]."""
    format_ = FORMATS[dtype]
    half = [format_.value(bits) for bits in range(format_.not_finite)]
    if dtype is Dtype.FLOAT8_E5M2:
        half.append(xp.inf)
    half += [xp.nan] * (128 - len(half))
    place = {"device": device} if device else {}
    return xp.asarray([*half, *(-number for number in half)], dtype=xp.float64, **place)


def round_tensor(values: Tensor, dtype: torch.dtype, *, out: Tensor | None = None) -> Tensor:
    """`values`, Tensor of float64, in `dtype`, rounded once; they may be overwritten. `out` takes the result."""
    ours = Dtype.of(dtype)
    held: torch.dtype = getattr(library_of(values), HELD_AS[ours])
    rounded: Tensor = round_once(values, ours, out=None if out is None else out.view(held))
    return rounded.view(dtype)


def round_pair(high: Array, low: Array, dtype: Dtype) -> Array:
    """The sums `high + low` of float64 in `dtype`, rounded once.

    A sum is first rounded to odd, which keeps what the second rounding needs to know (Boldo and Melquiond 2008,
    "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd").
    """
    xp = library_of(high)
    total, rest = two_sum(high, low)
    total = xp.where(low == 0, high, total)  # keeps the sign of a zero
    if dtype is Dtype.FLOAT64:
        return total
    bits = total.view(xp.int64)
    outward = (rest > 0) == (total > 0)
    to_odd = xp.where((rest != 0) & (bits & 1 == 0), xp.where(outward, 1, -1), 0)
    return round_once((bits + to_odd).view(xp.float64), dtype)


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """a + b as a rounded sum and its error, exactly (Knuth, TAOCP 2, 4.2.2, theorem B)."""
    total = a + b
    b_part = total - a
    a_part = total - b_part
    return total, (a - a_part) + (b - b_part)


def two_product(a: Array, b: float) -> tuple[Array, Array]:
    """a * b as a rounded product and its error, exactly if nothing over- or underflows (Dekker 1971)."""
    product = a * b
    a_high, b_high = _upper_half(a), _upper_half(b)
    a_low, b_low = a - a_high, b - b_high
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, error


def _upper_half(a: Array) -> Array:
    """The upper 26 digits of float64 numbers (Veltkamp)."""
    scaled = a * 134217729.0  # 2**27 + 1
    return scaled - (scaled - a)
