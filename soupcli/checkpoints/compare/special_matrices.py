"""Matrices whose numbers keep to a rule that no mean keeps to: rows of length 1, at right angles too, and triangles.

broken_rule(checkpoints, selection)                      # "'rot.weight' has rows of length 1 ... in all, the mean not"
triangles(checkpoints, selection)                        # "'dist.scale_tril' is a triangle ..."

Weights that only began by the rule leave it as far as they move, and so does their mean. The mean of those that are
kept to it is farther from it than any of them.

Shapes: k rows that are looked at, c columns.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.compare.factors import FEWEST, LEADING, differ
from soupcli.checkpoints.compare.fixed_numbers import is_alike, shown
from soupcli.checkpoints.compare.weight_parts import joined
from soupcli.checkpoints.numbers import GLANCE, first_numbers, read_numbers
from soupcli.mixing.arithmetic.arrays import diagonal, library_of, quiet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.checkpoints.tensor_filter import TensorFilter
    from soupcli.mixing.arithmetic.arrays import Array

DIGITS = re.compile(r"\d+")
MOST_ALIKE = 2  # matrices of one name but for its numbers, and of one shape, that are looked at
KEPT = 2.0**-6  # by the root of the length: the farthest from its rule that bfloat16 rounds a matrix
TIMES = 10  # that the mean is farther from it than any ingredient
NEAR = 4  # that a row's sum of squares is off by its first numbers
WIDEST = 1 << 16  # columns
LARGEST_TALL = 1 << 18  # elements of a matrix whose columns are looked at, for which all is read
PIVOTS = ("pivots", "piv", "lu_pivots", "LU_pivots")
LARGEST = 1 << 22  # elements of a triangle


def broken_rule(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> str | None:
    """Return a warning that rows or columns are of length 1, or orthonormal, in all, and not in the mean, or None."""
    found = [
        (name, rule)
        for name in _matrices(checkpoints, selection)
        if (rule := _broken(checkpoints, name)) is not None and differ(checkpoints, name)
    ]
    if not found:
        return None
    (name, rule), more = found[0], f", and {len(found) - 1} more such" if len(found) > 1 else ""
    what = f"orthonormal {rule.of}" if rule.orthonormal else f"{rule.of} of length 1"
    return (
        f"{name!r} has {what} in every ingredient, the mean has not (off by {rule.off:.2g}){more}: restore it in the "
        "soup if the network relies on it, or mix what it is computed of"
    )


class _Rule(NamedTuple):
    of: str  # rows or columns
    orthonormal: bool
    off: float  # by which the mean is off


def _broken(checkpoints: Sequence[Checkpoint], name: str) -> _Rule | None:
    spec = checkpoints[0].tensors[name]
    rows, columns = spec.shape[0], math.prod(spec.shape[1:])
    of = "rows" if rows <= columns or rows * columns > LARGEST_TALL else "columns"
    length, count = (columns, rows) if of == "rows" else (rows, columns)
    if count < FEWEST or not FEWEST <= length <= WIDEST or not _may_be_of_length_1(checkpoints[0], name, length):
        return None
    kept, sum_kc = KEPT / length**0.5, 0.0
    farthest = _Off(0.0, 0.0)
    for one in checkpoints:
        own_kc = _vectors(one, name, columns, of=of)
        off = _off(own_kc)
        if off.lengths > kept:
            return None
        farthest, sum_kc = _Off(*map(max, farthest, off)), sum_kc + own_kc
    mean = _off(sum_kc / len(checkpoints))
    if farthest.products <= kept and mean.products > TIMES * max(farthest.products, kept / TIMES):
        return _Rule(of, orthonormal=True, off=mean.products)
    far = mean.lengths > TIMES * max(farthest.lengths, kept / TIMES)
    return _Rule(of, orthonormal=False, off=mean.lengths) if far else None


def _may_be_of_length_1(checkpoint: Checkpoint, name: str, length: int) -> bool:
    """Whether the first numbers, as many as they are, could be of such a vector: they are of most matrices not."""
    numbers = first_numbers(checkpoint, name, GLANCE)
    square = sum(number * number for number in numbers) / len(numbers) * length
    return 1 / NEAR < square < NEAR


def _vectors(checkpoint: Checkpoint, name: str, columns: int, *, of: str) -> Array:
    spec = checkpoint.tensors[name]
    if of == "rows":
        count = min(LEADING, spec.shape[0])
        return read_numbers(checkpoint, name, 0, count * columns).reshape(count, columns)
    return read_numbers(checkpoint, name, 0, spec.numel).reshape(-1, columns)[:, :LEADING].T


class _Off(NamedTuple):
    lengths: float
    products: float  # of any two vectors, and of each with itself


def _off(vectors_kc: Array) -> _Off:
    """Return how far vectors are from length 1, and from being orthonormal."""
    with quiet(library_of(vectors_kc)):
        gram_kk = (vectors_kc @ vectors_kc.T).tolist()
    count = range(len(gram_kk))
    lengths = max(abs(gram_kk[k][k] - 1) for k in count)
    return _Off(lengths, max(lengths, *(abs(gram_kk[k][j]) for k in count for j in range(k))))


def triangles(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> str | None:
    """Return a warning that matrices are triangles, as factors of Cholesky's and of LU are, and averaged, or None."""
    found = [
        name
        for name in _matrices(checkpoints, selection)
        if _may_be_triangle(checkpoints[0], name)
        and all(_is_triangle(one, name) for one in checkpoints)
        and differ(checkpoints, name)
    ]
    if found:
        return f"{shown(found)} is a triangle, as Cholesky's and LU's are, {OF_FACTORS}"
    packed = [name for name in _matrices(checkpoints, selection) if _has_pivots(checkpoints[0], name)]
    if packed and differ(checkpoints, packed[0]):
        return f"{shown(packed)} holds two triangles, by the pivots beside it, {OF_FACTORS}"
    return None


OF_FACTORS = "and the mean is of factors: if they are computed, not trained, save what they make together"


def _has_pivots(checkpoint: Checkpoint, name: str) -> bool:
    """Whether integers for each row lie beside a square matrix, which are called pivots."""
    module, _, leaf = name.rpartition(".")
    spec, tensors = checkpoint.tensors[name], checkpoint.tensors
    beside = (tensors.get(joined(module, other)) for other in (*PIVOTS, f"{leaf}_pivots"))
    return spec.shape[-1] == spec.shape[-2] and any(
        other is not None and other.shape[-1:] == spec.shape[-1:] for other in beside
    )


def _may_be_triangle(checkpoint: Checkpoint, name: str) -> bool:
    """Whether the first row of a square has nothing behind its first number, or the last one before its last."""
    spec = checkpoint.tensors[name]
    size = spec.shape[-1]
    if len(spec.shape) not in (2, 3) or size != spec.shape[-2] or size < FEWEST or spec.numel > LARGEST:
        return False
    first = first_numbers(checkpoint, name, min(GLANCE, size))
    return first[0] > 0 and (
        not any(first[1:]) or not read_numbers(checkpoint, name, spec.numel - size, min(GLANCE, size - 1)).any()
    )


def _is_triangle(checkpoint: Checkpoint, name: str) -> bool:
    spec = checkpoint.tensors[name]
    size = spec.shape[-1]
    numbers_bcc = read_numbers(checkpoint, name, 0, spec.numel).reshape(-1, size, size)
    xp = library_of(numbers_bcc)
    sides = sorted(int((side != 0).sum()) for side in (xp.tril(numbers_bcc, -1), xp.triu(numbers_bcc, 1)))
    is_full = sides[1] * 4 > len(numbers_bcc) * size * (size - 1)  # half of the numbers on one side
    return sides[0] == 0 and is_full and float(diagonal(numbers_bcc).min()) > 0


def _matrices(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> Iterator[str]:
    """Yield the mixed floating matrices that have one shape in all, of those of many layers the first ones."""
    seen: Counter[tuple[str, tuple[int, ...]]] = Counter()
    for name, spec in checkpoints[0].tensors.items():
        if len(spec.shape) > 1 and spec.numel and selection.mixes(name):
            kind = DIGITS.sub("", name), spec.shape
            seen[kind] += 1
            if seen[kind] <= MOST_ALIKE and is_alike(checkpoints, name):
                yield name
