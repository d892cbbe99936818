"""One tensor of a soup as the weighted terms of its ingredients, and when float64 adds them without error.

terms = Terms.of("head.weight", members, weights=None, dtype=Dtype.FLOAT32)
for start, count in chunks(terms):                        # pieces in which average.py mixes it
    ...
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from soupcli.mixing.arithmetic.float_format import FORMATS, Format

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.checkpoints.dtype import Dtype
    from soupcli.mixing.arithmetic.magnitudes import Range

READ = 1 << 22  # bytes that are read before they are summed
ROWS = 8  # ingredients that are read before they are summed
FEW_DIGITS = 24  # of a weight, behind the point: with more, float64 does not add weighted float32 numbers exactly


def reals(dtype: Dtype) -> int:
    """Return the number of real numbers in an element."""
    return 2 if dtype.is_complex else 1


class Term(NamedTuple):
    """One ingredient in a sum."""

    member: Checkpoint
    weight: float | None  # None: all weigh the same


class Terms(NamedTuple):
    """One tensor of a soup: the sum of weighted tensors over a divisor."""

    name: str
    numel: int
    dtype: Dtype  # of the output
    batches: Sequence[tuple[Dtype, Sequence[Term]]]  # of one stored dtype, at most ROWS
    members: int
    divisor: int  # 1 if there are weights
    weight: float  # at least the sum of the weights' magnitudes
    weight_grid: float  # a power of two of which all weights are multiples

    @classmethod
    def of(cls, name: str, members: Sequence[Checkpoint], *, weights: Sequence[float] | None, dtype: Dtype) -> Terms:
        """Return tensor `name` of the members: their weighted sum, or without `weights` their mean."""
        factors = (1.0,) * len(members) if weights is None else weights
        by_dtype: dict[Dtype, list[Term]] = {}
        for member, factor in zip(members, factors, strict=True):
            term = Term(member, None if weights is None else factor)
            by_dtype.setdefault(member.tensors[name].dtype, []).append(term)
        batches = [
            (stored, group[first : first + ROWS])
            for stored, group in by_dtype.items()
            for first in range(0, len(group), ROWS)
        ]
        total = math.fsum(map(abs, factors)) * (1 + 2.0**-40)
        grid = min((_lowest_digit(factor) for factor in factors if factor), default=1.0)
        divisor = len(members) if weights is None else 1
        return cls(name, members[0].tensors[name].numel, dtype, batches, len(members), divisor, total, grid)

    @property
    def is_copy(self) -> bool:
        """Whether the tensor is one ingredient's, unchanged."""
        stored, batch = self.batches[0]
        return self.members == 1 and stored == self.dtype and batch[0].weight is None

    def are_exact(self, range_: Range) -> bool:
        """Whether float64 adds weighted terms of such a range without any error."""
        grid = range_.grid * self.weight_grid
        return grid > 0 and range_.largest * self.weight <= 2.0**53 * grid

    def need_no_pieces(self, range_: Range) -> bool:
        """Whether terms of such a range are exact, or would hardly be in parts of it: weights have too many digits."""
        return self.are_exact(range_) or self.weight_grid < 2.0**-FEW_DIGITS

    def may_be_tiny(self, range_: Range) -> bool:
        """Whether a mean of terms of such a range may lie below the least normal number of the output, zeros aside."""
        return range_.grid * self.weight_grid / self.divisor < FORMATS[self.dtype.real].least_normal

    def error(self, range_: Range) -> float:
        """A bound of the error of such a mean in float64, in any order of the additions."""
        return (self.members + 2) * 2.0**-52 * range_.largest * self.weight / self.divisor

    @property
    def weights(self) -> list[float]:
        """The weight of each term, in the order of the batches; empty if all are equal."""
        return [term.weight for _, batch in self.batches for term in batch if term.weight is not None]

    @property
    def stored_format(self) -> Format:
        """The format that holds the numbers of all terms."""
        formats = [FORMATS[stored.real] for stored, _ in self.batches]
        most_digits = max(formats, key=lambda format_: format_.digits)
        return most_digits._replace(smallest=min(format_.smallest for format_ in formats))


def _lowest_digit(number: float) -> float:
    numerator, denominator = number.as_integer_ratio()
    return (numerator & -numerator) / denominator


def chunks(terms: Terms, numel: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield (start, count) of the pieces in which a tensor, or its first `numel` elements, is mixed."""
    itemsize = max(stored.itemsize for stored, _ in terms.batches)
    size = READ // itemsize // min(terms.members, ROWS)
    end = terms.numel if numel is None else numel
    for start in range(0, end, size):
        yield start, min(size, end - start)
