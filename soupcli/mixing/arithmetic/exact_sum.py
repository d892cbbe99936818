"""Weighted means that plain float64 arithmetic leaves in doubt: exact, column by column, and rounded once.

    mean_k = exact_means(columns_tk, [], 32, Dtype.FLOAT32, FORMATS[Dtype.FLOAT32])       # array[t, k] of float64

Most columns are narrow enough that float64 adds them without error, though some number beside them was tiny. The others
are carried as a pair of float64 numbers, `high + low`, about 106 digits (Ogita, Rump and Oishi 2005, "Accurate sum and
dot product", algorithm Sum2), with a bound of what even that has lost. Where the bound leaves one result possible it is
the exact mean, rounded once; the rest is added up in fractions.

Shapes: t terms, k columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import repeat
from typing import TYPE_CHECKING

from soupcli.mixing.arithmetic.arrays import Array, Library, library_of
from soupcli.mixing.arithmetic.float_format import FORMATS, Format, nearest
from soupcli.mixing.arithmetic.rounding import HELD_AS, bits_of, round_once, round_pair, two_product, two_sum

if TYPE_CHECKING:
    from soupcli.checkpoints.dtype import Dtype

_EXPONENT = 0x7FF0_0000_0000_0000  # bits of float64
SAFE = 2.0**900  # beyond it, or below its inverse, products and partial sums may over- or underflow


def exact_means(columns_tk: Array, weights: Sequence[float], divisor: int, dtype: Dtype, stored: Format) -> Array:
    """The sum of each column, with `weights` its weighted sum, over `divisor`: array[k] of `dtype`, rounded once.

    `columns_tk` is array[t, k] of float64, its numbers are such as the format `stored` holds. The result is held as
    HELD_AS says.
    """
    xp = library_of(columns_tk)
    mean_k = xp.empty(columns_tk.shape[1], dtype=getattr(xp, HELD_AS[dtype]))
    exact_k = xp.zeros(len(mean_k)) != 0 if weights else _added_exactly(columns_tk, stored)
    mean_k[exact_k] = round_once(columns_tk[:, exact_k].sum(axis=0) / divisor, dtype)
    open_k = ~exact_k
    if open_k.any():
        mean_k[open_k] = _mean_of_pairs(columns_tk[:, open_k], weights, divisor, dtype)
    return mean_k


def _added_exactly(columns_tk: Array, stored: Format) -> Array:
    """Which columns float64 adds without any error, those with numbers that are all zero aside: array[k]."""
    xp = library_of(columns_tk)
    sizes_tk = xp.abs(columns_tk)
    largest_k, least_k = xp.amax(sizes_tk, axis=0), xp.amin(xp.where(sizes_tk == 0, xp.inf, sizes_tk), axis=0)
    power_k = (least_k.view(xp.int64) & _EXPONENT).view(xp.float64)  # of two, at most `least`
    grid_k = (power_k * 2.0 ** (1 - stored.digits)).clip(min=stored.smallest)
    return (largest_k * len(columns_tk) <= 2.0**53 * grid_k) & (largest_k > 0)


def _mean_of_pairs(columns_tk: Array, weights: Sequence[float], divisor: int, dtype: Dtype) -> Array:
    xp = library_of(columns_tk)
    pair = PairSum(columns_tk.shape[1], xp)
    for values_k, weight in zip(columns_tk, weights or repeat(None), strict=False):
        pair.add(values_k, weight)
    mean_k, settled_k = pair.mean(divisor, dtype)
    open_k = ~settled_k
    exact = [exact_mean(column, weights, FORMATS[dtype]) for column in columns_tk[:, open_k].T.tolist()]
    mean_k[open_k] = round_once(xp.asarray(exact, dtype=xp.float64), dtype)
    return mean_k


class PairSum:
    """Sums of weighted terms, element by element, as `high + low`."""

    def __init__(self, count: int, xp: Library) -> None:
        self._xp = xp
        self._high, self._low = (xp.full((count,), zero, dtype=xp.float64) for zero in (-0.0, 0.0))
        self._rounded = self._low != 0  # whether high + low is not the exact sum
        self._largest, self._least = (xp.full((count,), bound, dtype=xp.float64) for bound in (0.0, xp.inf))
        self._terms = 0

    def add(self, values: Array, weight: float | None) -> None:
        """Adds `values`, or `weight * values`: array[count] of float64."""
        xp = self._xp
        parts = (values,) if weight is None else two_product(values, weight)
        for part in parts:
            self._high, error = two_sum(self._high, part)
            self._low, error = two_sum(self._low, error)
            self._rounded |= error != 0
        size = xp.abs(parts[0])
        self._largest = xp.maximum(self._largest, xp.maximum(size, xp.abs(values)))
        is_nothing = weight is None or 1 / SAFE < abs(weight) < SAFE  # a product that is 0 is of a 0
        self._least = xp.minimum(self._least, xp.where((values == 0) & is_nothing, xp.inf, size))
        self._terms += len(parts)

    def mean(self, divisor: int, dtype: Dtype) -> tuple[Array, Array]:
        """The sums divided by `divisor` in `dtype`, and for each whether it is the exact mean rounded once."""
        xp = self._xp
        total, rest = two_sum(self._high, self._low)
        total = xp.where(rest == self._low, self._high, total)  # keeps the sign of a zero
        exact = ~self._rounded
        quotient = total / divisor
        product, error = two_product(quotient, float(divisor))
        low = (((total - product) - error) + rest) / divisor
        bound = xp.where(exact, 0.0, self._largest * (self._terms**3 * 2.0**-104 / divisor))
        if divisor & (divisor - 1):  # else the division was exact
            bound = bound + xp.abs(low) * 2.0**-50
        lower, upper = round_pair(quotient, low - bound, dtype), round_pair(quotient, low + bound, dtype)
        # The quotient of a float64 number and an integer lies in float64 on the right side of every narrower tie.
        whole = exact & (rest == 0)
        settled = (whole | (bits_of(lower, dtype) == bits_of(upper, dtype))) & self._safe()
        return xp.where(whole, round_once(quotient, dtype), upper), settled

    def _safe(self) -> Array:
        return (self._largest < SAFE) & (self._least > 1 / SAFE)


def exact_mean(values: Sequence[float], weights: Sequence[float], format_: Format) -> float:
    """The mean of `values` (with `weights`: their weighted sum), computed in fractions and rounded once."""
    factors = weights or (1.0,) * len(values)
    total = sum(Fraction(value) * Fraction(factor) for value, factor in zip(values, factors, strict=True))
    if weights:
        return nearest(Fraction(total), format_)
    if total == 0 and all(math.copysign(1, value) < 0 for value in values):
        return -0.0  # as IEEE 754 adds them
    return nearest(Fraction(total) / len(values), format_)
