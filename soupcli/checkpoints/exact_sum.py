"""Weighted means that plain float64 arithmetic leaves in doubt: by error-free sums, and at last by fractions.

    pair = PairSum(count)
    for values in terms:
        pair.add(values, weight=None)                         # Tensor[count] of float64
    mean, settled = pair.mean(len(terms), torch.float32)

A sum is carried as a pair of float64 numbers, `high + low`, about 106 digits (Ogita, Rump and Oishi 2005, "Accurate sum
and dot product", algorithm Sum2), with a bound of what even that has lost. Where the bound leaves one result possible
it is the exact mean, rounded once; the rest is for `exact_mean`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from soupcli.checkpoints.rounding import FORMATS, Format, nearest, round_once, round_pair, two_product, two_sum

SAFE = 2.0**900  # beyond it, or below its inverse, products and partial sums may over- or underflow


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


def exact_mean(values: Sequence[float], weights: Sequence[float] | None, format_: Format) -> float:
    """The mean of `values` (with `weights`: their weighted sum), computed in fractions and rounded once."""
    factors = (1.0,) * len(values) if weights is None else weights
    total = sum(Fraction(value) * Fraction(factor) for value, factor in zip(values, factors, strict=True))
    if weights is not None:
        return nearest(Fraction(total), format_)
    if total == 0 and all(math.copysign(1, value) < 0 for value in values):
        return -0.0  # as IEEE 754 adds them
    return nearest(Fraction(total) / len(values), format_)
