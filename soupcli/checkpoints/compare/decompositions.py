"""Weights that a decomposition took apart: QR, eigenvectors, Tucker's, tensor trains, complex numbers by their phase.

for together in decomposed(checkpoints, selection):
    together.names                                        # parts whose mean is wrong
perhaps_decomposed(checkpoints, selection)                # parts that are mixed, with a warning

Training leaves no matrix whose columns are of length 1 and at right angles, so such a matrix beside a triangle, beside
values in order, or among tensors that are called factors is a decomposition's. Factors without it may be trained ones.

Shapes: o rows of a factor, r its columns, k columns that are looked at.
"""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import TYPE_CHECKING

from soupcli.checkpoints.compare.factors import FEWEST, LARGEST, LEADING, UPRIGHT, differ, groups_of, pairs_of
from soupcli.checkpoints.compare.weight_parts import Together, form_of_parts, joined
from soupcli.checkpoints.numbers import GLANCE, first_numbers, read_numbers
from soupcli.mixing.arithmetic.arrays import library_of, quiet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint, TensorSpec
    from soupcli.checkpoints.tensor_filter import TensorFilter
    from soupcli.mixing.arithmetic.arrays import Array

UNIT = 1e-2  # by which the length of a unit vector in bfloat16 is not 1
# Names of tensorly's and of others' factors of one tensor.
NETWORK = re.compile(r"(.*?)\.?((tt_|tucker_)?cores?([._]\d+)?|factors\.(factor_)?\d+|(tt_)?factor_\d+)")
VALUES = re.compile(r"weight|bias|gamma|beta|running_(mean|var)")  # vectors of layers, which are no eigenvalues
OF_NETWORKS = ("core", "factor")  # one is in each such name
MAGNITUDE = re.compile(r"(.*?)[._]?(magnitudes?|mag|abs|modulus|amplitudes?|amp)")
PHASE = re.compile(r"(.*?)[._]?(phases?|angles?|arg)")
PHASES = ("phase", "phases", "angle", "angles", "arg")  # ends of its names
SAMPLE = 1 << 14  # phases that are looked at
WRAPPED = 1.5 * math.pi  # two phases that are further apart lie on both sides of the cut

FACTOR = form_of_parts(
    "decomposed",
    "a factor that a decomposition made of a weight",
    "multiply the factors, and save the weights; or mix the networks from before, and decompose the soup",
)
POLAR = form_of_parts(
    "polar",
    "the phase of complex weights, cut at half a turn, with magnitudes beside it",
    "torch.polar(magnitude, phase) gives the weights: save these",
)


def decomposed(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> Iterator[Together]:
    """Yield the mixed parts of decompositions that differ and whose mean is wrong."""
    for names, orthonormal in _candidates(checkpoints[0]):
        if not _may_be_mixed(checkpoints, selection, names):
            continue
        if any(
            all(_is_orthonormal(one, name) for one in checkpoints) and differ(checkpoints, name) for name in orthonormal
        ):
            yield Together(FACTOR, names)
    for magnitude, phase in _polar_pairs(checkpoints[0]):
        if _may_be_mixed(checkpoints, selection, (magnitude, phase)) and _is_cut(checkpoints, magnitude, phase):
            yield Together(POLAR, (phase, magnitude))


def perhaps_decomposed(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> list[tuple[str, ...]]:
    """Return the mixed tensors that differ and are called factors, cores, or magnitude and phase."""
    first = checkpoints[0]
    named = [*_networks(first), *(pair for pair in _polar_pairs(first) if len(first.tensors[pair[0]].shape) > 1)]
    return [
        names
        for names in named
        if _may_be_mixed(checkpoints, selection, names) and any(differ(checkpoints, name) for name in names)
    ]


def _may_be_mixed(checkpoints: Sequence[Checkpoint], selection: TensorFilter, names: Sequence[str]) -> bool:
    """Whether some of the tensors are mixed, and all checkpoints have them as floating numbers of the same shapes."""
    first = checkpoints[0]
    return any(map(selection.mixes, names)) and all(
        (own := one.tensors.get(name)) is not None
        and own.dtype.is_floating_point
        and own.shape == first.tensors[name].shape
        for one in checkpoints
        for name in names
    )


def _candidates(checkpoint: Checkpoint) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Yield the parts of what may be a decomposition, with those of them that are orthonormal if it is one."""
    if checkpoint.is_adapter:
        return
    for names in _networks(checkpoint):
        yield names, tuple(name for name in names if len(checkpoint.tensors[name].shape) > 1)
    for pair in pairs_of(checkpoint.tensors):
        one, other = pair.names
        for triangle, rest in ((one, other), (other, one)):
            if _is_triangle(checkpoint, triangle, pair.rank):
                yield (rest, triangle), (rest,)
    yield from _with_values(checkpoint)


def _networks(checkpoint: Checkpoint) -> Iterator[tuple[str, ...]]:
    """Yield the tensors that are called factors or cores of one weight."""
    found: dict[str, list[str]] = {}
    for name, spec in checkpoint.tensors.items():
        may_match = spec.dtype.is_floating_point and spec.shape and any(word in name for word in OF_NETWORKS)
        matched = NETWORK.fullmatch(name) if may_match else None
        if matched is not None:
            found.setdefault(matched[1], []).append(name)
    yield from (tuple(names) for names in found.values() if len(names) > 1)


def _with_values(checkpoint: Checkpoint) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Yield the only matrix of a module with a vector that has a value for each of its columns or rows, in order."""
    for module, leaves in groups_of(checkpoint.tensors).items():
        matrices = [leaf for leaf, spec in leaves.items() if len(spec.shape) > 1]
        if len(matrices) != 1 or len(leaves[matrices[0]].shape) != 2:
            continue
        for leaf, spec in leaves.items():
            of_values = len(spec.shape) == 1 and spec.shape[0] in leaves[matrices[0]].shape and spec.shape[0] >= LEADING
            if of_values and not VALUES.fullmatch(leaf.rpartition(".")[2]):
                names = joined(module, matrices[0]), joined(module, leaf)
                if _is_in_order(checkpoint, names[1], spec):
                    yield names, names[:1]


def _is_in_order(checkpoint: Checkpoint, name: str, spec: TensorSpec) -> bool:
    numbers = first_numbers(checkpoint, name, GLANCE) if spec.dtype.is_floating_point else [0.0, 0.0]
    return all(one < other for one, other in pairwise(numbers)) or all(one > other for one, other in pairwise(numbers))


def _is_triangle(checkpoint: Checkpoint, name: str, rank: int) -> bool:
    """Whether a matrix is R of a QR decomposition, or its transpose, by the zeros in its last or first row."""
    spec = checkpoint.tensors[name]
    if not spec.dtype.is_floating_point or len(spec.shape) != 2 or rank < FEWEST:
        return False
    rows, columns = spec.shape
    at_end = (rows - 1) * columns, 1 - rank  # upper: the last row has zeros up to the diagonal
    starts = [at_end[0]] if rows == rank else []
    starts += [1] if columns == rank else []  # lower: the first row has zeros from the second column on
    return any(not any(_read(checkpoint, name, start, min(GLANCE, rank - 1))) for start in starts) and _read(
        checkpoint, name, 0, 1
    ) != [0.0]


def _read(checkpoint: Checkpoint, name: str, start: int, count: int) -> list[float]:
    numbers: list[float] = read_numbers(checkpoint, name, start, count).tolist()
    return numbers


def _is_orthonormal(checkpoint: Checkpoint, name: str) -> bool:
    """Whether the leading columns, or rows, of a matrix are of length 1 and at right angles."""
    spec = checkpoint.tensors[name]
    if spec.numel > LARGEST or len(spec.shape) < 2:
        return False
    rows, columns = math.prod(spec.shape[:-1]), spec.shape[-1]
    numbers_or = read_numbers(checkpoint, name, 0, spec.numel).reshape(rows, columns)
    return _are_orthonormal(numbers_or[:, :LEADING].T) or _are_orthonormal(numbers_or[:LEADING])


def _are_orthonormal(vectors_kn: Array) -> bool:
    count, length = vectors_kn.shape
    if count < FEWEST or length < count:
        return False
    with quiet(library_of(vectors_kn)):
        gram_kk, most = (vectors_kn @ vectors_kn.T).tolist(), UPRIGHT / length**0.5
    upright = all(abs(gram_kk[k][j]) <= most for k in range(count) for j in range(k))
    return upright and all(abs(gram_kk[k][k] - 1) <= UNIT for k in range(count))


def _polar_pairs(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """Yield tensors of one shape that are called magnitude and phase."""
    named = ((PHASE.fullmatch(name), name) for name in checkpoint.tensors if name.endswith(PHASES))
    phases = {(found[1], checkpoint.tensors[name].shape): name for found, name in named if found is not None}
    for name, spec in checkpoint.tensors.items() if phases else ():
        found = MAGNITUDE.fullmatch(name)
        phase = phases.get((found[1], spec.shape)) if found is not None else None
        if phase is not None:
            yield name, phase


def _is_cut(checkpoints: Sequence[Checkpoint], magnitude: str, phase: str) -> bool:
    """Whether phases lie within half a turn, and some are on both sides of the cut: their mean is half a turn off."""
    count = min(SAMPLE, checkpoints[0].tensors[phase].numel)
    if not count:
        return False
    read = [read_numbers(one, phase, 0, count) for one in checkpoints]
    with quiet(library_of(read[0])):  # infinities and NaNs are no phases
        within = all(float(abs(numbers).max()) <= math.pi * (1 + UNIT) for numbers in read)
        positive = all(float(read_numbers(one, magnitude, 0, count).min()) >= 0 for one in checkpoints)
        return within and positive and any(float(abs(other - read[0]).max()) > WRAPPED for other in read[1:])
