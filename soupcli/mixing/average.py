"""The mean of tensors, chunk by chunk: the exact mean, rounded once, in any order of the ingredients.

    terms = Terms.of("head.weight", members, weights=None, dtype=torch.float32)
    averager = Averager()                                     # one for each thread
    for start, count in chunks(terms):
        part = averager.mean(terms, start, count)             # Tensor[count] of the output dtype, until the next call

Float64 adds without any error as long as all terms are multiples of one power of two, the grid, and the sum stays below
2**53 of it. The largest and the smallest magnitude of a chunk therefore tell, in one pass, whether its sums are exact;
of real float32, bfloat16 and float16 weights nearly all are. Elements of the other chunks are taken where both ends of
the error interval round to one number, and summed without error where not (exact_sum.py). So every result is the exact
mean rounded once: in each order of the ingredients, on each device, however the tensor is cut into chunks.

Shapes: r ingredients of a batch, c elements of a chunk (twice as many real numbers where they are complex).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import groupby
from typing import TYPE_CHECKING

from soupcli.checkpoints.checkpoint import weights_file
from soupcli.checkpoints.compare.constants import way_out
from soupcli.errors import MixError, SoupFault
from soupcli.late import torch
from soupcli.mixing.arithmetic.exact_sum import exact_means
from soupcli.mixing.arithmetic.magnitudes import PIECE, Bounds, Range
from soupcli.mixing.arithmetic.rounding import FORMATS, round_once
from soupcli.mixing.terms import ROWS, Term, Terms, real, reals

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 1 << 16  # numbers that are converted at once: 512 KB of float64, which stay in the cache


class Averager:
    """Mixes chunks of a mixture's tensors, in scratch memory of its own: one for each thread.

    On a CUDA device each has pinned buffers and a stream, so that while one reads another copies and a third adds.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._cpu = torch.device("cpu")
        self._device = device if device is not None and device.type == "cuda" else self._cpu  # mps has no float64
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        self._scratch: dict[tuple[str, torch.device], Tensor] = {}

    def mean(self, terms: Terms, start: int, count: int) -> Tensor:
        """Elements `start` to `start + count` of the mean: Tensor[count] of the output dtype.

        It is valid until the next call. Raises MixError if an ingredient holds a NaN or an infinity, or if the
        output dtype cannot hold the mean.
        """
        with torch.cuda.stream(self._stream) if self._stream is not None else contextlib.nullcontext():
            if terms.is_copy:
                return self._copied(terms, start, count)
            total_c, spreads = self._add_up(terms, start, count)
            range_ = reduce(Range.joined, (spread.whole for spread in spreads))
            if not math.isfinite(range_.largest):
                return self._constant(terms, start, count)
            if terms.are_exact(range_):
                mean_c = self._rounded(terms, range_, total_c)
            else:
                mean_c = self._rounded(terms, range_, total_c.clone())
                self._settle(terms, spreads, total_c.cpu(), mean_c, start)
        _check_overflow(terms, range_, mean_c)
        return mean_c.view(terms.dtype)

    def _copied(self, terms: Terms, start: int, count: int) -> Tensor:
        ((stored, batch),) = terms.batches
        row_rc = self._read(terms.name, stored, batch, start, count)
        spread = Bounds.of(row_rc.clone(), FORMATS[real(stored)], lambda _: True)
        if not math.isfinite(spread.whole.largest) and terms.name not in batch[0].member.constants:
            self._blame(terms, start, count)
        return row_rc[0].cpu().view(stored)

    def _take(self, use: str, dtype: torch.dtype, *shape: int, device: torch.device | None = None) -> Tensor:
        """Uninitialised memory that the next call with the same `use` hands out again."""
        device = self._cpu if device is None else device
        nbytes = math.prod(shape) * dtype.itemsize
        held = self._scratch.get((use, device))
        if held is None or held.numel() < nbytes:
            pinned = self._stream is not None and device == self._cpu
            held = torch.empty(nbytes, dtype=torch.uint8, device=device, pin_memory=pinned)
            self._scratch[use, device] = held
        return held[:nbytes].view(dtype).view(shape)

    def _add_up(self, terms: Terms, start: int, count: int) -> tuple[Tensor, list[Bounds]]:
        """The sum of the weighted terms in float64, and between which magnitudes the terms of each batch lie."""
        length = count * reals(terms.dtype)
        total_c = self._take("total", torch.float64, length, device=self._device)
        spreads: list[Bounds] = []
        for number, (stored, batch) in enumerate(terms.batches):
            raw_rc = self._read(terms.name, stored, batch, start, count)
            part_c = self._take("part", torch.float64, length, device=self._device) if number else total_c
            self._sum_rows(raw_rc, [term.weight for term in batch if term.weight is not None], part_c)
            if number:
                total_c.add_(part_c)
            spreads.append(Bounds.of(raw_rc, FORMATS[real(stored)], terms.need_no_pieces))
        if batch[0].weight is None and all(spread.zeros for spread in spreads):
            total_c.masked_fill_(self._negative_zeros(terms, start, count), -0.0)
        return total_c, spreads

    def _sum_rows(self, raw_rc: Tensor, weights: Sequence[float], out_c: Tensor) -> None:
        """The sum of the rows, with `weights` their weighted sum, in float64."""
        rows, length = raw_rc.shape
        for first in range(0, length, BLOCK // ROWS):
            block_rc = raw_rc[:, first : first + BLOCK // ROWS]
            wide_rc = self._take("wide", torch.float64, *block_rc.shape, device=self._device).copy_(block_rc)
            if weights:
                wide_rc.mul_(torch.tensor(weights, dtype=torch.float64, device=self._device).view(rows, 1))
            torch.sum(wide_rc, dim=0, out=out_c[first : first + BLOCK // ROWS])

    def _negative_zeros(self, terms: Terms, start: int, count: int) -> Tensor:
        """Which numbers of the chunk are -0.0 in all ingredients, and so in the mean: Tensor[c] of bool."""
        every_c = torch.ones(count * reals(terms.dtype), dtype=torch.bool, device=self._device)
        for stored, batch in terms.batches:
            bits = FORMATS[real(stored)].bits
            greatest_c = self._read(terms.name, stored, batch, start, count).view(bits).amax(dim=0)
            every_c &= greatest_c == torch.iinfo(bits).min  # as an integer -0.0 is the least
        return every_c

    def _read(self, name: str, stored: torch.dtype, batch: Sequence[Term], start: int, count: int) -> Tensor:
        """The stored numbers of a batch of ingredients on the device: Tensor[r, c]."""
        shape = len(batch), count * reals(stored)
        read_rc = self._take("read", real(stored), *shape)
        for row_c, (member, _) in zip(read_rc, batch, strict=True):
            member.read(name, row_c.view(stored), start=start)
        if self._device == self._cpu:
            return read_rc
        # The buffer is read into again only after the range of these numbers has been waited for.
        return self._take("raw", real(stored), *shape, device=self._device).copy_(read_rc, non_blocking=True)

    def _rounded(self, terms: Terms, range_: Range, total_c: Tensor) -> Tensor:
        """The mean of an exact sum: its quotient in float64 is on the right side of every tie of a narrower dtype."""
        dtype = terms.real_dtype
        if terms.divisor & (terms.divisor - 1):
            total_c.div_(terms.divisor)
        elif terms.divisor > 1:
            total_c.mul_(1 / terms.divisor)  # as exact, and faster
        tiny = range_.grid * terms.weight_grid / terms.divisor < FORMATS[dtype].least_normal
        mean_c = self._take("mean", dtype, len(total_c), device=self._device)
        scratch_c = self._take("part", torch.int64, len(total_c), device=self._device)
        round_once(total_c, dtype, out=mean_c, scratch=scratch_c, tiny=tiny)
        return mean_c if self._device == self._cpu else self._take("mean", dtype, len(total_c)).copy_(mean_c)

    def _settle(self, terms: Terms, spreads: Sequence[Bounds], total_c: Tensor, mean_c: Tensor, start: int) -> None:
        """Replaces the means of those pieces whose sums may have been rounded."""
        ranges = [
            reduce(Range.joined, (spread.piece(number) for spread in spreads))
            for number in range(-(-len(total_c) // PIECE))
        ]
        first = 0
        for is_exact, run in groupby(ranges, terms.are_exact):
            bounds = list(run)
            last = first + len(bounds)
            if not is_exact:
                part = slice(first * PIECE, min(last * PIECE, len(total_c)))
                begin = start + part.start // reals(terms.dtype)
                mean_c[part] = self._settled(terms, reduce(Range.joined, bounds), total_c[part], begin)
            first = last

    def _settled(self, terms: Terms, range_: Range, total_c: Tensor, start: int) -> Tensor:
        """The mean of sums that may have been rounded: Tensor[c]."""
        dtype, error = terms.real_dtype, terms.error(range_)
        if dtype != torch.float64 and SMALLEST_ERROR < error < 1 / SMALLEST_ERROR:
            mean_c = total_c / terms.divisor
            lower_c, upper_c = round_once(mean_c - error, dtype), round_once(mean_c + error, dtype)
            bits = FORMATS[dtype].bits
            doubtful_k = (lower_c.view(bits) != upper_c.view(bits)).nonzero()[:, 0]
        else:
            upper_c = torch.empty(len(total_c), dtype=dtype)
            doubtful_k = torch.arange(len(total_c))
        for chosen_k in _near_one_another(doubtful_k, most=max(1, BLOCK // terms.members)):
            columns_tk = self._columns(terms, start, chosen_k)
            upper_c[chosen_k] = exact_means(columns_tk, terms.weights, terms.divisor, dtype, terms.stored_format)
        return upper_c

    def _columns(self, terms: Terms, start: int, chosen_k: Tensor) -> Tensor:
        """The terms' numbers at these places: Tensor[t, k] of float64, t in the order of the batches."""
        per_element = reals(terms.dtype)
        first, last = (int(end) // per_element for end in (chosen_k[0], chosen_k[-1]))
        near_k = chosen_k - first * per_element
        rows = [
            self._read(terms.name, stored, batch, start + first, last - first + 1).cpu()[:, near_k].to(torch.float64)
            for stored, batch in terms.batches
        ]
        return torch.cat(rows)

    def _constant(self, terms: Terms, start: int, count: int) -> Tensor:
        """A chunk with infinities, if it is the same in all ingredients and may have some: Tensor[count].

        Raises MixError if not.
        """
        every = [(stored, term) for stored, batch in terms.batches for term in batch]
        first_c: Tensor | None = None
        known = any(terms.name in term.member.constants for _, term in every)
        for stored, term in every if known else []:
            row_c = self._read(terms.name, stored, [term], start, count)[0].cpu().clone()
            first_c = row_c if first_c is None else first_c
            known = known and _same_numbers(first_c, row_c)
        if not known or first_c is None:
            self._blame(terms, start, count)
        assert first_c is not None
        return first_c.to(terms.real_dtype).view(terms.dtype)

    def _blame(self, terms: Terms, start: int, count: int) -> None:
        """Raises MixError naming the ingredient that holds the NaN or infinity."""
        for stored, batch in terms.batches:
            for term in batch:
                row_c = self._read(terms.name, stored, [term], start, count)[0].cpu()
                bad = (~row_c.to(torch.float64).isfinite()).nonzero()
                if len(bad):
                    number, element = int(bad[0]), start + int(bad[0]) // reals(stored)
                    found = f"tensor {terms.name!r} holds {row_c[number].item()} at element {element}"
                    raise MixError(
                        f"{weights_file(term.member)}: {found}",
                        hint=way_out(term.member, terms.name),
                    )
        raise SoupFault(f"tensor {terms.name!r}: a number that was not finite is gone")


def _same_numbers(one: Tensor, other: Tensor) -> bool:
    """Whether two rows hold the same numbers, NaNs included, in any dtypes."""
    if one.dtype == other.dtype:
        return torch.equal(one.view(torch.uint8), other.view(torch.uint8))
    return torch.equal(one.to(torch.float64).nan_to_num(0.5), other.to(torch.float64).nan_to_num(0.5))


def _near_one_another(places_k: Tensor, *, most: int) -> Iterator[Tensor]:
    """Ascending places, those of one piece together, at most so many."""
    _, counts = torch.unique_consecutive(places_k // PIECE, return_counts=True)
    for near_k in torch.split(places_k, counts.tolist()):
        yield from torch.split(near_k, most)


SMALLEST_ERROR = 2.0**-900  # of an interval around a mean; below it its ends may not be what they seem


def _check_overflow(terms: Terms, range_: Range, mean: Tensor) -> None:
    format_ = FORMATS[mean.dtype]
    slack = 1 + 2.0**-39 if mean.dtype.itemsize == 1 else 1  # the bound of the weights is as much too large
    if range_.largest * terms.weight / terms.divisor <= format_.largest * slack:
        return
    magnitudes = mean.view(format_.bits) & format_.magnitude
    # Where a dtype has no infinity, torch gives its largest number instead.
    if int(magnitudes.amax()) >= format_.not_finite - (mean.dtype.itemsize == 1):
        raise MixError(
            f"tensor {terms.name!r}: the mean goes beyond {format_.largest:.6g}, the largest number of {terms.dtype}",
            hint="choose a wider --dtype, e.g. --dtype bfloat16",
        )
