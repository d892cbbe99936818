"""The mean of tensors, chunk by chunk: the exact mean, rounded once, in any order of the ingredients.

    terms = Terms.of("head.weight", members, weights=None, dtype=Dtype.FLOAT32)
    averager = Averager()                                     # one for each thread
    for start, count in chunks(terms):
        part = averager.mean(terms, start, count)             # the bytes of its numbers, until the next call

Float64 adds without any error as long as all terms are multiples of one power of two, the grid, and the sum stays below
2**53 of it. The largest and the smallest magnitude of a chunk therefore tell, in one pass, whether its sums are exact;
of real float32, bfloat16 and float16 weights nearly all are. Elements of the other chunks are taken where both ends of
the error interval round to one number, and summed without error where not (exact_sum.py). So every result is the exact
mean rounded once: in each order of the ingredients, on each device, however the tensor is cut into chunks.

Shapes: r ingredients of a batch, c elements of a chunk (twice as many real numbers where they are complex).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from itertools import groupby
from typing import TYPE_CHECKING

from soupcli.checkpoints.checkpoint import weights_file
from soupcli.checkpoints.compare.constants import way_out
from soupcli.errors import MixError, SoupFault
from soupcli.mixing.arithmetic.arrays import Array, Library, bytes_of, copied, library_of, places, quiet
from soupcli.mixing.arithmetic.exact_sum import exact_means
from soupcli.mixing.arithmetic.float_format import FORMATS
from soupcli.mixing.arithmetic.magnitudes import PIECE, Bounds, Range
from soupcli.mixing.arithmetic.rounding import HELD_AS, bits_of, round_once, wide
from soupcli.mixing.sums import BLOCK, Seen, Sums
from soupcli.mixing.terms import Terms, reals

if TYPE_CHECKING:
    import torch

    from soupcli.checkpoints.dtype import Dtype


class Averager:
    """Mixes chunks of a mixture's tensors, in scratch memory of its own: one for each thread."""

    def __init__(
        self, device: torch.device | None = None, library: Library | None = None, seen: Seen | None = None
    ) -> None:
        """`device` is one of torch that knows float64, or None for the CPU, where `library` adds up. See `Sums`."""
        self._sums = Sums(device, library, seen)
        self._mean_c: Array = None  # it owns the memory of what was returned

    def mean(self, terms: Terms, start: int, count: int) -> memoryview:
        """The bytes of elements `start` to `start + count` of the mean, in the output dtype.

        They are valid until the next call. Raises MixError if an ingredient holds a NaN or an infinity, or if the
        output dtype cannot hold the mean.
        """
        with quiet(self._sums.library):  # infinities and NaNs are looked for
            self._mean_c = self._copied(terms, start, count) if terms.is_copy else self._mixed(terms, start, count)
        return bytes_of(self._mean_c)

    def _mixed(self, terms: Terms, start: int, count: int) -> Array:
        bounds = self._sums.add_up(terms, start, count)
        range_ = reduce(Range.joined, (found.whole for found in bounds))
        if not math.isfinite(range_.largest):
            return self._constant(terms, start, count)
        if terms.are_exact(range_):
            mean_c = self._sums.rounded(terms, range_)
        else:
            total_c = self._sums.totals()
            mean_c = self._sums.rounded(terms, range_)
            self._settle(terms, bounds, total_c, mean_c, start)
        _check_overflow(terms, range_, mean_c)
        return mean_c

    def _copied(self, terms: Terms, start: int, count: int) -> Array:
        ((stored, batch),) = terms.batches
        row_rc, format_ = self._sums.read(terms.name, stored, batch, start, count), FORMATS[stored.real]
        largest = Bounds.of(copied(bits_of(row_rc, stored.real)), format_, lambda _: True).whole.largest
        if not math.isfinite(largest) and terms.name not in batch[0].member.constants:
            self._blame(terms, start, count)
        return row_rc[0]

    def _settle(self, terms: Terms, bounds: Sequence[Bounds], total_c: Array, mean_c: Array, start: int) -> None:
        """Replaces the means of those pieces whose sums may have been rounded."""
        ranges = [
            reduce(Range.joined, (found.piece(number) for found in bounds))
            for number in range(-(-len(total_c) // PIECE))
        ]
        first = 0
        for is_exact, run in groupby(ranges, terms.are_exact):
            of_run = list(run)
            last = first + len(of_run)
            if not is_exact:
                part = slice(first * PIECE, min(last * PIECE, len(total_c)))
                begin = start + part.start // reals(terms.dtype)
                mean_c[part] = self._settled(terms, reduce(Range.joined, of_run), total_c[part], begin)
            first = last

    def _settled(self, terms: Terms, range_: Range, total_c: Array, start: int) -> Array:
        """The mean of sums that may have been rounded: array[c]."""
        dtype, error = terms.dtype.real, terms.error(range_)
        if dtype.itemsize < 8 and SMALLEST_ERROR < error < 1 / SMALLEST_ERROR:
            mean_c = total_c / terms.divisor
            lower_c, upper_c = round_once(mean_c - error, dtype), round_once(mean_c + error, dtype)
            doubtful_k = places(bits_of(lower_c, dtype) != bits_of(upper_c, dtype))
        else:
            xp = self._sums.library
            upper_c = xp.empty(len(total_c), dtype=getattr(xp, HELD_AS[dtype]))
            doubtful_k = xp.arange(len(total_c))
        most = max(1, BLOCK // terms.members)
        for chosen_k in (doubtful_k[first : first + most] for first in range(0, len(doubtful_k), most)):
            columns_tk = self._columns(terms, start, chosen_k)
            upper_c[chosen_k] = exact_means(columns_tk, terms.weights, terms.divisor, dtype, terms.stored_format)
        return upper_c

    def _columns(self, terms: Terms, start: int, chosen_k: Array) -> Array:
        """The terms' numbers at these places: array[t, k], t in the order of the batches."""
        per_element = reals(terms.dtype)
        first, last = (int(end) // per_element for end in (chosen_k[0], chosen_k[-1]))
        near_k = chosen_k - first * per_element
        rows = [
            wide(self._sums.read(terms.name, stored, batch, start + first, last - first + 1)[:, near_k], stored)
            for stored, batch in terms.batches
        ]
        return self._sums.library.concatenate(rows)

    def _constant(self, terms: Terms, start: int, count: int) -> Array:
        """A chunk with infinities, if it is the same in all ingredients and may have some: array[c].

        Raises MixError if not.
        """
        (first, first_stored), *others = [(term, stored) for stored, batch in terms.batches for term in batch]
        first_c = copied(self._sums.read(terms.name, first_stored, [first], start, count)[0])
        known = any(terms.name in term.member.constants for term, _ in [(first, first_stored), *others])
        if not known or not all(
            _same_numbers(first_c, first_stored, self._sums.read(terms.name, stored, [term], start, count)[0], stored)
            for term, stored in others
        ):
            self._blame(terms, start, count)
        if first_stored == terms.dtype and all(stored == first_stored for _, stored in others):
            same = (self._sums.read(terms.name, stored, [term], start, count)[0] for term, stored in others)
            if all(bytes_of(first_c) == bytes_of(row_c) for row_c in same):
                return first_c
        return round_once(wide(first_c, first_stored) + 0.0, terms.dtype.real)  # 0, if one has 0 and another -0

    def _blame(self, terms: Terms, start: int, count: int) -> None:
        """Raises MixError naming the ingredient that holds the NaN or infinity."""
        for stored, batch in terms.batches:
            for term in batch:
                row_c = wide(self._sums.read(terms.name, stored, [term], start, count)[0], stored)
                bad = places(~library_of(row_c).isfinite(row_c))
                if len(bad):
                    number, element = int(bad[0]), start + int(bad[0]) // reals(stored)
                    found = f"tensor {terms.name!r} holds {row_c[number].item()} at element {element}"
                    raise MixError(
                        f"{weights_file(term.member)}: {found}",
                        hint=way_out(term.member, terms.name),
                    )
        raise SoupFault(f"tensor {terms.name!r}: a number that was not finite is gone")


def _same_numbers(one_c: Array, its: Dtype, other_c: Array, others: Dtype) -> bool:
    """Whether two rows hold the same numbers, NaNs included, in any dtypes."""
    if its == others and bytes_of(one_c) == bytes_of(other_c):
        return True
    wide_c, other_wide_c = wide(one_c, its), wide(other_c, others)
    return bool(((wide_c == other_wide_c) | ((wide_c != wide_c) & (other_wide_c != other_wide_c))).all())


SMALLEST_ERROR = 2.0**-900  # of an interval around a mean; below it its ends may not be what they seem


def _check_overflow(terms: Terms, range_: Range, mean_c: Array) -> None:
    format_, is_byte = FORMATS[terms.dtype.real], terms.dtype.itemsize == 1
    slack = 1 + 2.0**-39 if is_byte else 1  # the bound of the weights is as much too large
    if range_.largest * terms.weight / terms.divisor <= format_.largest * slack:
        return
    magnitudes = bits_of(mean_c, terms.dtype.real) & format_.magnitude
    # Where a dtype has no infinity, torch gives its largest number instead.
    if int(magnitudes.max()) >= format_.not_finite - is_byte:
        raise MixError(
            f"tensor {terms.name!r}: the mean goes beyond {format_.largest:.6g}, the largest number of {terms.dtype}",
            hint="choose a wider --dtype, e.g. --dtype bfloat16",
        )
