"""Weighted means that plain float64 arithmetic leaves in doubt: exact, column by column, and rounded once.

    mean_k = exact_means(columns_tk, None, 32, torch.float32, FORMATS[torch.float32])     # Tensor[t, k] of float64

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

from soupcli.late import torch
from soupcli.mixing.arithmetic.rounding import FORMATS, Format, nearest, round_once, round_pair, two_product, two_sum

if TYPE_CHECKING:
    from torch import Tensor

_EXPONENT = 0x7FF0_0000_0000_0000  # bits of float64
SAFE = 2.0**900  # beyond it, or below its inverse, products and partial sums may over- or underflow


def exact_means(
    columns_tk: Tensor, weights: Sequence[float], divisor: int, dtype: torch.dtype, stored: Format
) -> Tensor:
    """The sum of each column, with `weights` its weighted sum, over `divisor`: Tensor[k] of `dtype`, rounded once.

    `columns_tk` is Tensor[t, k] of float64, its numbers are such as the format `stored` holds.
    """
    mean_k = torch.empty(columns_tk.shape[1], dtype=dtype)
    exact_k = torch.zeros_like(mean_k, dtype=torch.bool) if weights else _added_exactly(columns_tk, stored)
    mean_k[exact_k] = round_once(columns_tk[:, exact_k].sum(dim=0).div_(divisor), dtype)
    open_k = (~exact_k).nonzero()[:, 0]
    if len(open_k):
        mean_k[open_k] = _mean_of_pairs(columns_tk[:, open_k], weights, divisor, dtype)
    return mean_k


def _added_exactly(columns_tk: Tensor, stored: Format) -> Tensor:
    """Which columns float64 adds without any error, those with numbers that are all zero aside: Tensor[k] of bool."""
    sizes_tk = columns_tk.abs()
    largest_k, least_k = sizes_tk.amax(dim=0), sizes_tk.masked_fill_(sizes_tk == 0, math.inf).amin(dim=0)
    power_k = (least_k.view(torch.int64) & _EXPONENT).view(torch.float64)  # of two, at most `least`
    grid_k = (power_k * 2.0 ** (1 - stored.digits)).clamp_(min=stored.smallest)
    return (largest_k * len(columns_tk) <= 2.0**53 * grid_k) & (largest_k > 0)


def _mean_of_pairs(columns_tk: Tensor, weights: Sequence[float], divisor: int, dtype: torch.dtype) -> Tensor:
    pair = PairSum(columns_tk.shape[1])
    for values_k, weight in zip(columns_tk, weights or repeat(None), strict=False):
        pair.add(values_k, weight)
    mean_k, settled_k = pair.mean(divisor, dtype)
    open_k = (~settled_k).nonzero()[:, 0]
    exact = [exact_mean(column, weights, FORMATS[dtype]) for column in columns_tk[:, open_k].T.tolist()]
    mean_k[open_k] = torch.tensor(exact, dtype=torch.float64).to(dtype)
    return mean_k


class PairSum:
    """Sums of weighted terms, element by element, as `high + low`."""

    def __init__(self, count: int) -> None:
        self._high = torch.full((count,), -0.0, dtype=torch.float64)
        self._low = torch.zeros_like(self._high)
        self._rounded = torch.zeros(count, dtype=torch.bool)  # whether high + low is not the exact sum
        self._largest = torch.zeros_like(self._high)
        self._least = torch.full_like(self._high, math.inf)
        self._terms = 0

    def add(self, values: Tensor, weight: float | None) -> None:
        """Adds `values`, or `weight * values`: Tensor[count] of float64."""
        parts = (values,) if weight is None else two_product(values, weight)
        for part in parts:
            self._high, error = two_sum(self._high, part)
            self._low, error = two_sum(self._low, error)
            self._rounded |= error != 0
        size = parts[0].abs()
        self._largest = torch.maximum(self._largest, torch.maximum(size, values.abs()))
        nothing = (values == 0) if weight is None or 1 / SAFE < abs(weight) < SAFE else torch.tensor(False)
        self._least = torch.minimum(self._least, torch.where(nothing, math.inf, size))
        self._terms += len(parts)

    def mean(self, divisor: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The sums divided by `divisor` in `dtype`, and for each whether it is the exact mean rounded once."""
        total, rest = two_sum(self._high, self._low)
        total = torch.where(rest == self._low, self._high, total)  # keeps the sign of a zero
        exact = ~self._rounded
        quotient = total / divisor
        product, error = two_product(quotient, float(divisor))
        low = (((total - product) - error) + rest) / divisor
        bound = torch.where(exact, 0.0, self._largest * (self._terms**3 * 2.0**-104 / divisor))
        if divisor & (divisor - 1):  # else the division was exact
            bound = bound + low.abs() * 2.0**-50
        lower, upper = round_pair(quotient, low - bound, dtype), round_pair(quotient, low + bound, dtype)
        bits = FORMATS[dtype].bits
        # The quotient of a float64 number and an integer lies in float64 on the right side of every narrower tie.
        whole = exact & (rest == 0)
        settled = (whole | (lower.view(bits) == upper.view(bits))) & self._safe()
        return torch.where(whole, round_once(quotient, dtype), upper), settled

    def _safe(self) -> Tensor:
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
