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
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.dtype import Dtype
from soupcli.mixing.arithmetic.arrays import Array, Library, copied, diagonal, library_of, places, quiet
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
LEAST_SQUARE = 2.0**-80  # of a piece: products in float32 may have vanished

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
    return xp.sqrt(xp.where(square_kk <= ROUNDING * scale_kk, 0.0, square_kk))


def lengths(gram_kk: Array) -> Array:
    """Return distances from the origin of the offsets, [..., k]."""
    return library_of(gram_kk).sqrt(diagonal(gram_kk).clip(min=0))


def angles(gram_kk: Array) -> Array:
    """Return angles between offsets in degrees, [..., k, k], NaN if one has no length.

    From |u/|u| - v/|v|| = 2 sin(angle/2): the arc cosine would lose small angles.
    """
    xp, length_k = library_of(gram_kk), lengths(gram_kk)
    with quiet(xp):
        cosine_kk = gram_kk / (length_k[..., :, None] * length_k[..., None, :])
        chord_kk = xp.sqrt((2 - 2 * cosine_kk).clip(0, 4))
        return xp.rad2deg(2 * xp.arcsin(chord_kk / 2))


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
    pieces = [
        (layer, piece)
        for layer, names in enumerate(groups.values())
        for piece in divide(dict.fromkeys(names, Dtype.FLOAT64), checkpoints)
    ]
    count, layers, reader = len(checkpoints), len(groups), Reader(checkpoints, library=library)
    xp = reader.library
    gram_lkk = xp.zeros((layers, count + 1, count + 1), dtype=xp.float64)  # the last one is the mean
    found: dict[tuple[int, str], NotFinite] = {}
    done, total = 0, sum(piece.numel for _, piece in pieces)
    waiting: dict[int, _Products] = {}
    added = 0
    for number, products in in_threads(
        lambda: _Multiplier(reader, quick=quick), enumerate(piece for _, piece in pieces)
    ):
        waiting[number] = products
        while added in waiting:  # in the order of the pieces: the same sums whichever thread is first
            layer, piece = pieces[added]
            products = waiting.pop(added)
            gram_lkk[layer] += products.gram_kk
            for bad in products.not_finite:
                known = found.get(bad[:2], bad._replace(elements=0))
                found[bad[:2]] = known._replace(elements=known.elements + bad.elements)
            added, done = added + 1, done + piece.numel
            progress("measuring", done, total)
    sizes = [sum(checkpoints[0].tensors[name].numel for name in names) for names in groups.values()]
    in_order = sorted(found.values(), key=lambda bad: bad.checkpoint)
    inner = slice(0, count)
    return Geometry(
        list(groups), sizes, gram_lkk[:, inner, inner], gram_lkk[:, inner, count], gram_lkk[:, count, count], in_order
    )


class _Products(NamedTuple):
    """The contribution of one piece."""

    gram_kk: Array  # of offsets and, last, the mean
    not_finite: list[NotFinite]


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
                    return number, _Products(_about_mean(gram_kk), [])
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
            gram_kk += rows_km @ rows_km.T
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
        return _Products(gram_kk, [] if finite else _not_finite(piece, raw_kn))

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
    width = block_width(len(rows_kn))
    return (rows_kn[:, begin : begin + width] for begin in range(0, rows_kn.shape[1], width))


def _is_sharp(gram_kk: Array) -> bool:
    """Whether products in float32 tell all checkpoints of a piece apart; no if a number is not finite.

    Also from zero, whose offset from the first checkpoint is the first one's negative.
    """
    xp, every = library_of(gram_kk), range(len(gram_kk))
    sign_k = xp.ones(len(gram_kk), dtype=xp.float64)
    sign_k[0] = -1.0
    square_k = diagonal(gram_kk)
    scale_kk = square_k[:, None] + square_k
    apart_kk = scale_kk - 2 * sign_k[:, None] * gram_kk * sign_k
    apart_kk[every, every] = xp.inf
    told_apart = bool((apart_kk > NEAR * scale_kk).all())
    return told_apart and bool(xp.isfinite(gram_kk).all()) and bool((square_k > LEAST_SQUARE).all())


def _about_mean(gram_kk: Array) -> Array:
    """[k+1, k+1] of offsets from the mean, and of the mean, from products of the first and of offsets from it.

    Sums of rows do it: products of matrices would take as long as the cube of the checkpoints.
    """
    xp, size = library_of(gram_kk), len(gram_kk) + 1
    along_k, offset_kk = copied(gram_kk[0]), copied(gram_kk)
    along_k[0] = offset_kk[0] = offset_kk[:, 0] = 0.0  # the first one's own offset
    row_k = offset_kk.mean(axis=1)
    along, square = along_k.mean(), row_k.mean()  # of the mean's offset: with the first, with itself
    found_kk = xp.empty((size, size), dtype=xp.float64)
    found_kk[:-1, :-1] = offset_kk - row_k[:, None] - row_k + square
    found_kk[-1, :-1] = found_kk[:-1, -1] = along_k - along + row_k - square
    found_kk[-1, -1] = gram_kk[0, 0] + 2 * along + square
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


def layers_by_name(names: Iterable[str]) -> dict[str, list[str]]:
    """Tensor names by layer, from the names alone: `blocks.3`, `bert.encoder.layer.0`, `stages.2.blocks.1`, `head`.

    A layer is a numbered part with parts of its own, the deepest of them that stand one in another
    (`stages.2.blocks.1`); what lies in none is by the module that holds it.
    """
    names = list(names)
    blocks = {prefix for name in names for prefix, rest in _numbered(name) if "." in rest}
    divided: dict[str, list[str]] = {}
    for name in names:
        inside = [prefix for prefix, _ in _numbered(name) if prefix in blocks]
        divided.setdefault(inside[-1] if inside else name.rpartition(".")[0] or name, []).append(name)
    return divided


def _numbered(name: str) -> list[tuple[str, str]]:
    """(`stages.2`, `blocks.1.fc1.weight`), (`stages.2.blocks.1`, `fc1.weight`): each number close to the one before."""
    parts = name.split(".")
    found: list[tuple[str, str]] = []
    last: int | None = None
    for place, part in enumerate(parts[:-1]):
        if part.isdigit() and (last is None or place - last <= 2):
            found.append((".".join(parts[: place + 1]), ".".join(parts[place + 1 :])))
            last = place
    return found
