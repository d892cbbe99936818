"""Distances and angles between checkpoints' weights, from inner products, layer by layer, in one pass.

    groups = layers_by_name(first.tensors)                     # {"blocks.0": ["blocks.0.attn.qkv.weight", ...], ...}
    geometry = measure([base, *ingredients], groups)
    gram_lkk = geometry.about(0)                               # of the ingredients' offsets from the base
    angles(gram_lkk[2]), distances(gram_lkk.sum(0))            # of one layer, of all

Each chunk of all checkpoints is read together, centred at its mean and multiplied, so that distances are as sharp
between checkpoints that hardly differ as between strangers: products of the weights themselves would lose the
difference of two large numbers. What is held is chunks of a fixed size and one matrix for each layer, whatever the
number of checkpoints. Products about another point than the mean, and those of whole weights, follow from these.

Products are in float64, or with `quick` in float32, several times as fast: of the first checkpoint and the others'
offsets from it. Differences of near float32 numbers are exact, sums over blocks are in float64, and a piece in which
checkpoints are too near for that is read again and multiplied in float64. Angles are then right to far less than 0.01
degree.

numpy multiplies where it can be imported, else torch: arrays are of either.

Letters in names: l layers, k checkpoints, n elements of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.dtype import Dtype
from soupcli.mixing.arithmetic.arrays import Array, Library, copied, cpu_library, diagonal, library_of, places, quiet
from soupcli.mixing.arithmetic.float_format import FORMATS
from soupcli.mixing.arithmetic.rounding import wide, widen, widen_scaled
from soupcli.networks.learned.offsets import Reader, block_width
from soupcli.networks.learned.pieces import OffsetPiece, divide
from soupcli.progress import Progress, silent
from soupcli.threads import in_threads

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint

SINGLE = (Dtype.FLOAT32, Dtype.BFLOAT16, Dtype.FLOAT16)  # float32 holds their numbers as they are
NEAR = 2.0**-10  # of the squares of two offsets: products in float32 tell a difference that is no smaller
SQUARES = 2.0**-80, 2.0**120  # of a piece: products in float32 may have vanished below, or be infinite above

FEW = 9  # rows, up to which BLAS multiplies a matrix with each of them in less time than with all at once

# What is left of a difference of two squares of which each is right to so much of itself: nothing.
ROUNDING = 2.0**-44


class NotFinite(NamedTuple):
    """A tensor of a checkpoint with NaNs or infinities."""

    checkpoint: int  # its place in the list
    name: str
    element: int  # the first one, in row-major order
    value: float
    elements: int  # how many there are


class Geometry(NamedTuple):
    """Inner products of checkpoints in float64, layer by layer.

    Elements that are not finite in one checkpoint are left out of all.
    """

    layers: list[str]
    sizes: list[int]  # elements
    gram_lkk: Array  # of the offsets from the mean of the checkpoints
    along_lk: Array  # of each offset with the mean
    square_l: Array  # of the mean with itself
    not_finite: list[NotFinite]  # by checkpoint, then by layer

    def about(self, reference: int) -> Array:
        """Return inner products of the others' offsets from one of the checkpoints, [l, k-1, k-1]."""
        others = [k for k in range(self.gram_lkk.shape[1]) if k != reference]
        gram_lkk = self.gram_lkk[:, others][:, :, others]
        along_lk, square_l = self.gram_lkk[:, others, reference], self.gram_lkk[:, reference, reference]
        about_lkk = gram_lkk - along_lk[:, :, None] - along_lk[:, None, :] + square_l[:, None, None]
        same_lk = diagonal(about_lkk) <= ROUNDING * (diagonal(gram_lkk) + square_l[:, None])
        return library_of(about_lkk).where(same_lk[:, :, None] | same_lk[:, None, :], 0.0, about_lkk)

    def whole(self) -> Array:
        """Return inner products of the weights themselves, [l, k, k]."""
        along_lkk = self.along_lk[:, :, None] + self.along_lk[:, None, :]
        return self.gram_lkk + along_lkk + self.square_l[:, None, None]


def distances(gram_kk: Array) -> Array:
    """Return Euclidean distances between points, [..., k, k], from inner products of their offsets from any origin."""
    xp, square_k = library_of(gram_kk), diagonal(gram_kk)
    scale_kk = square_k[..., :, None] + square_k[..., None, :]
    square_kk = scale_kk - 2 * gram_kk
    square_kk[square_kk <= ROUNDING * scale_kk] = 0.0
    return xp.sqrt(square_kk)


def lengths(gram_kk: Array) -> Array:
    """Return distances from the origin of the offsets, [..., k]."""
    return library_of(gram_kk).sqrt(diagonal(gram_kk).clip(min=0))


def angles(gram_kk: Array) -> Array:
    """Return angles between offsets in degrees, [..., k, k], NaN if one has no length.

    From |u/|u| - v/|v|| = 2 sin(angle/2): the arc cosine would lose small angles.
    """
    xp, length_k = library_of(gram_kk), lengths(gram_kk)
    with quiet(xp):
        square_kk = gram_kk / length_k[..., :, None]  # of half of the chord: sin(angle/2)**2 = (1 - cosine) / 2
        square_kk /= length_k[..., None, :]
        square_kk *= -0.5
        square_kk += 0.5  # 0 for two that are the same, not -0
        half_kk = xp.sqrt(square_kk.clip(0, 1))
        return xp.rad2deg(xp.arcsin(half_kk)) * 2.0


def measure(
    checkpoints: Sequence[Checkpoint],
    groups: Mapping[str, Sequence[str]],
    *,
    quick: bool = False,
    library: Library | None = None,
    progress: Progress = silent,
) -> Geometry:
    """Read the tensors of all groups once. They must be real floating tensors of one shape in all checkpoints.

    `quick` is for angles and distances that people look at: see the head of this file. Arrays are of `library`. Raises
    CheckpointError if a file ends early or changes.
    """
    xp, count = library or cpu_library(), len(checkpoints)
    layers = list(measure_layers(checkpoints, groups, quick=quick, library=xp, progress=progress))
    none = xp.zeros((0, count, count), dtype=xp.float64), xp.zeros((0, count), dtype=xp.float64), xp.zeros(0)
    arrays = zip(*([*none], *((one.gram_lkk, one.along_lk, one.square_l) for one in layers)), strict=True)
    gram_lkk, along_lk, square_l = map(xp.concatenate, arrays)
    not_finite = sorted((bad for one in layers for bad in one.not_finite), key=lambda bad: bad.checkpoint)
    return Geometry(list(groups), [one.sizes[0] for one in layers], gram_lkk, along_lk, square_l, not_finite)


def measure_layers(
    checkpoints: Sequence[Checkpoint],
    groups: Mapping[str, Sequence[str]],
    *,
    quick: bool = False,
    library: Library | None = None,
    progress: Progress = silent,
) -> Iterator[Geometry]:
    """Yield the geometry of one layer after another, so that matrices of no other are in memory. See `measure`."""
    divided = [divide(dict.fromkeys(names, Dtype.FLOAT64), checkpoints) for names in groups.values()]
    reader = Reader(checkpoints, library=library or cpu_library())
    done, total = 0, sum(piece.numel for pieces in divided for piece in pieces)
    numbered = enumerate(piece for pieces in divided for piece in pieces)
    with closing(in_threads(lambda: _Multiplier(reader, quick=quick), numbered)) as found:
        in_order = _in_order(found)  # the same sums whichever thread is first
        for name, pieces in zip(groups, divided, strict=True):
            layer = _Layer(len(checkpoints), reader.library)
            for piece in pieces:
                layer.add(next(in_order))
                done += piece.numel
                progress("measuring", done, total)
            yield layer.geometry(name, sum(checkpoints[0].tensors[tensor].numel for tensor in groups[name]))


class _Products(NamedTuple):
    """The contribution of one piece."""

    gram_kk: (
        Array  # of the first checkpoint and the others' offsets from it; else of offsets from the mean and, last, it
    )
    about_first: bool
    not_finite: list[NotFinite]


def _in_order(found: Iterable[tuple[int, _Products]]) -> Iterator[_Products]:
    """The products of pieces by their numbers, from 0 on."""
    waiting: dict[int, _Products] = {}
    following = 0
    for number, products in found:
        waiting[number] = products
        while following in waiting:
            yield waiting.pop(following)
            following += 1


class _Layer:
    """Sums of the products of a layer's pieces."""

    def __init__(self, count: int, xp: Library) -> None:
        self._count, self._xp = count, xp
        self._sums: dict[bool, Array] = {}  # by whether they are about the first checkpoint
        self._found: dict[tuple[int, str], NotFinite] = {}

    def add(self, products: _Products) -> None:
        """Add those of the next piece, which may be overwritten."""
        if products.about_first in self._sums:
            self._sums[products.about_first] += products.gram_kk
        else:
            self._sums[products.about_first] = products.gram_kk
        for bad in products.not_finite:
            known = self._found.get(bad[:2], bad._replace(elements=0))
            self._found[bad[:2]] = known._replace(elements=known.elements + bad.elements)

    def geometry(self, name: str, size: int) -> Geometry:
        """The geometry of this layer alone."""
        parts = [_about_mean(gram_kk) if about_first else gram_kk for about_first, gram_kk in self._sums.items()]
        gram_kk = parts[0] if parts else self._xp.zeros((self._count + 1,) * 2, dtype=self._xp.float64)
        for part in parts[1:]:
            gram_kk += part
        in_order = sorted(self._found.values(), key=lambda bad: bad.checkpoint)
        square_l = gram_kk[-1:, -1]
        return Geometry([name], [size], gram_kk[None, :-1, :-1], gram_kk[None, :-1, -1], square_l, in_order)


class _Multiplier:
    """Reads and multiplies pieces, in the memory of its thread."""

    def __init__(self, reader: Reader, *, quick: bool) -> None:
        self._reader, self._xp, self._quick = reader, reader.library, quick

    def __call__(self, numbered: tuple[int, OffsetPiece]) -> tuple[int, _Products]:
        number, piece = numbered
        with quiet(self._xp):  # infinities and NaNs are looked for
            if self._quick and piece.dtype in SINGLE:
                gram_kk = self._in_single(piece, self._reader.raw(piece))
                if gram_kk is not None and _is_sharp(gram_kk):
                    return number, _Products(gram_kk, True, [])
            return number, self._in_double(piece, self._reader.raw(piece))

    def _in_single(self, piece: OffsetPiece, raw_kn: Array) -> Array | None:
        """[k, k]: products of the first checkpoint and of the others' offsets from it, which replace float32 numbers.

        Offsets from the mean would need a pass more, and memory beside what was read. None if a float16 is not finite.
        """
        xp, count = self._xp, len(raw_kn)
        gram_kk = xp.zeros((count, count), dtype=xp.float64)
        for rows_km in _blocks(raw_kn):
            if piece.dtype is not Dtype.FLOAT32:
                single_km = self._reader.scratch("wide", Dtype.FLOAT32, *rows_km.shape)
                scale = widen_scaled(rows_km, piece.dtype, out=single_km)
                rows_km = single_km
                if scale != 1:
                    rows_km *= scale
                    if max(xp.amax(rows_km), -xp.amin(rows_km)) > FORMATS[piece.dtype].largest:
                        return None
            rows_km[1:] -= rows_km[0]
            _add_products(gram_kk, rows_km)
        return gram_kk

    def _in_double(self, piece: OffsetPiece, raw_kn: Array) -> _Products:
        xp, size = self._xp, len(raw_kn) + 1
        gram_kk, finite = xp.zeros((size, size), dtype=xp.float64), True
        for mean_m, offsets_km in self._centred(piece, raw_kn):
            good_m = xp.isfinite(mean_m)
            if not bool(good_m.all()):
                finite = False
                offsets_km[:, ~good_m] = 0.0
                mean_m[~good_m] = 0.0
            gram_kk[:-1, :-1] += offsets_km @ offsets_km.T
            gram_kk[:-1, -1] += offsets_km @ mean_m
            gram_kk[-1, -1] += mean_m @ mean_m
        return _Products(gram_kk, False, [] if finite else _not_finite(piece, raw_kn))

    def _centred(self, piece: OffsetPiece, raw_kn: Array) -> Iterator[tuple[Array, Array]]:
        """Mean [m] and offsets from it [k, m] of each block, to be used before the next one is asked for."""
        xp, count = self._xp, len(raw_kn)
        share_k = xp.full((count,), 1.0 / count, dtype=xp.float64)
        for raw_km in _blocks(raw_kn):
            offsets_km = self._reader.scratch("wide", Dtype.FLOAT64, *raw_km.shape)
            widen(raw_km, piece.dtype, out=offsets_km)
            mean_m = share_k @ offsets_km
            offsets_km -= mean_m
            yield mean_m, offsets_km


def _blocks(rows_kn: Array) -> Iterator[Array]:
    width = max(block_width(len(rows_kn)), len(rows_kn))  # to add up products costs no more than to make them
    return (rows_kn[:, begin : begin + width] for begin in range(0, rows_kn.shape[1], width))


def _add_products(gram_kk: Array, rows_km: Array) -> None:
    """Add the products of all rows. Of few rows a product of matrices takes longer to arrange than to multiply."""
    if len(rows_km) > FEW:
        gram_kk += rows_km @ rows_km.T
        return
    for k, row_m in enumerate(rows_km):
        along_k = rows_km[k:] @ row_m
        gram_kk[k, k:] += along_k
        gram_kk[k + 1 :, k] += along_k[1:]


def _is_sharp(gram_kk: Array) -> bool:
    """Whether products in float32 tell all checkpoints of a piece apart; no if a number is not finite.

    Also from zero, whose offset from the first checkpoint is the first one's negative.
    """
    square_k = diagonal(gram_kk)
    if not bool(((square_k > SQUARES[0]) & (square_k < SQUARES[1])).all()):
        return False
    least_kk = gram_kk * (2 / (1 - NEAR))  # square + square - 2 * product > NEAR * (square + square)
    least_kk[0] *= -1
    least_kk[:, 0] *= -1
    least_kk -= square_k[:, None]
    least_kk -= square_k
    every_k = range(len(gram_kk))
    least_kk[every_k, every_k] = -1.0
    return bool((least_kk < 0).all())


def _about_mean(gram_kk: Array) -> Array:
    """[k+1, k+1] of offsets from the mean, and of the mean, from products of the first and of offsets from it.

    Sums of rows do it: products of matrices would take as long as the cube of the checkpoints.
    """
    xp, size = library_of(gram_kk), len(gram_kk) + 1
    along_k, first = copied(gram_kk[0]), float(gram_kk[0, 0])
    along_k[0] = 0.0  # the first one's own offset
    found_kk = xp.empty((size, size), dtype=xp.float64)
    offset_kk = found_kk[:-1, :-1]
    offset_kk[...] = gram_kk
    offset_kk[0] = offset_kk[:, 0] = 0.0
    row_k = offset_kk.mean(axis=1)
    along, square = along_k.mean(), row_k.mean()  # of the mean's offset: with the first, with itself
    offset_kk -= row_k[:, None]
    offset_kk -= row_k - square
    found_kk[-1, :-1] = found_kk[:-1, -1] = along_k - along + row_k - square
    found_kk[-1, -1] = first + 2 * along + square
    return found_kk


def _not_finite(piece: OffsetPiece, raw_kn: Array) -> list[NotFinite]:
    found = []
    for k, raw_n in enumerate(raw_kn):
        for span, place in piece.placed():
            bad = first_not_finite(wide(raw_n[place], piece.dtype))
            if bad is not None:
                found.append(NotFinite(k, span.name, span.start + bad[0], *bad[1:]))
    return found


def first_not_finite(wide_n: Array) -> tuple[int, float, int] | None:
    """Return place and value of the first NaN or infinity and their number, or None if all numbers are finite."""
    bad = places(~library_of(wide_n).isfinite(wide_n))
    return (int(bad[0]), float(wide_n[bad[0]]), len(bad)) if len(bad) else None
