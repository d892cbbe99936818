"""Matrices whose product is a weight, or a change of one, by their shapes and numbers, whatever their names.

for together in factorised(checkpoints, selection):
    together.names                                        # factors whose mean is wrong
perhaps_factors(checkpoints, selection)                   # pairs that are mixed, with a warning

Two layers in sequence have such shapes too, and are mixed. So matrices count as factors if they change a weight that is
the same in all, as adapters leave it, or if they are a singular value decomposition.

Shapes: o outputs and i inputs of the weight, r its rank, k leading vectors.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.compare.constants import same_numbers
from soupcli.checkpoints.compare.weight_parts import Together, form_of_parts, joined, modules_of
from soupcli.checkpoints.numbers import GLANCE, first_numbers, read_numbers
from soupcli.mixing.arithmetic.arrays import library_of, quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint, TensorSpec
    from soupcli.checkpoints.compare.weight_parts import Module
    from soupcli.checkpoints.tensor_filter import TensorFilter
    from soupcli.mixing.arithmetic.arrays import Array

    Shape = tuple[int, ...]

LEADING = 8  # vectors that are looked at
FEWEST = 4  # of them: fewer are in order by chance
UPRIGHT = 0.1  # of the cosine of two random vectors: those of a decomposition, rounded to bfloat16, are below it
LARGEST = 1 << 24  # elements of a factor that is read as a whole
FALLS = 1 - 1e-4  # the quotient of lengths that are not the same but for rounding
PARTS = (2, 4)  # factors of a change: of one product, or of two that are multiplied (LoHa)

ADAPTED = form_of_parts(
    "low rank",
    "a factor of a change of a weight that is the same in all",
    "add the products to the weights, and save these; or save LoRA adapters with PEFT's save_pretrained",
)
DECOMPOSED = form_of_parts(
    "decomposed",
    "a factor that a singular value decomposition made of a weight",
    "multiply the factors, and save the weights; or mix the networks from before, and decompose the soup",
)


class FactorGroup(NamedTuple):
    """Matrices of one module that may be multiplied."""

    names: tuple[str, ...]
    rank: int  # 0 for a Kronecker product
    base: str | None = None  # the weight that their product may change
    between: str | None = None  # vector[r] beside a pair: perhaps singular values
    is_bare: bool = False  # whether a pair multiplies as it is, and has at most a bias beside it


def factorised(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> Iterator[Together]:
    """Yield the mixed factors that differ and whose mean is wrong."""
    for change in _differing(checkpoints, selection, changes_of):
        if change.base is not None and same_numbers(checkpoints, change.base):
            yield Together(ADAPTED, change.names)
    for pair in _differing(checkpoints, selection, pairs_of):
        if all(_is_decomposed(one, pair) for one in checkpoints):
            yield Together(DECOMPOSED, pair.names)


def perhaps_factors(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> list[tuple[str, ...]]:
    """Return the mixed pairs of parameters that differ and have nothing beside them, and so may be factors."""
    return [pair.names for pair in _differing(checkpoints, selection, pairs_of) if pair.is_bare]


def _differing(
    checkpoints: Sequence[Checkpoint],
    selection: TensorFilter,
    found_in: Callable[[Mapping[str, TensorSpec]], Iterator[FactorGroup]],
) -> Iterator[FactorGroup]:
    first = checkpoints[0]
    for factors in found_in(first.tensors) if not first.is_adapter else ():
        mixed = any(map(selection.mixes, factors.names)) and all(_has(one, first, factors) for one in checkpoints)
        if mixed and any(differ(checkpoints, name) for name in factors.names):
            yield factors


def differ(checkpoints: Sequence[Checkpoint], name: str) -> bool:
    """Whether checkpoints have other numbers at the beginning of a tensor or in its middle: factors differ throughout.

    Frozen layers in sequence, which have the shapes of factors, are so not read as a whole.
    """
    numel = checkpoints[0].tensors[name].numel
    beginnings = {tuple(first_numbers(one, name, GLANCE)) for one in checkpoints}
    middle, count = numel // 2, min(GLANCE, numel - numel // 2)
    return len(beginnings) > 1 or len({tuple(_at(one, name, middle, count)) for one in checkpoints}) > 1


def _at(checkpoint: Checkpoint, name: str, start: int, count: int) -> list[float]:
    numbers: list[float] = read_numbers(checkpoint, name, start, count).tolist()
    return numbers


def _has(checkpoint: Checkpoint, first: Checkpoint, factors: FactorGroup) -> bool:
    """Whether a checkpoint has the factors and what lies beside them, in the same shapes and as floating numbers."""
    names = [*factors.names, *(name for name in (factors.base, factors.between) if name is not None)]
    specs = [(checkpoint.tensors.get(name), first.tensors[name]) for name in names]
    return all(own is not None and own.dtype.is_floating_point and own.shape == spec.shape for own, spec in specs)


def changes_of(tensors: Mapping[str, TensorSpec]) -> Iterator[FactorGroup]:
    """Yield factors with the weight that they change: all matrices of a module, or of one with the weight above it."""
    groups = groups_of(tensors)
    for module, leaves in groups.items():
        shapes = _matrices(leaves)
        if len(shapes) in PARTS and module:
            parent = module.rpartition(".")[0]
            above = {joined(parent, leaf): shape for leaf, shape in _matrices(groups.get(parent, {})).items()}
            bases = [name for name, shape in above.items() if _rank(shape, list(shapes.values())) is not None]
        elif len(shapes) - 1 in PARTS:
            bases = [
                joined(module, leaf)
                for leaf, shape in shapes.items()
                if _rank(shape, [other for name, other in shapes.items() if name != leaf]) is not None
            ]
        else:
            continue
        if len(bases) == 1:
            yield from _change(module, leaves, shapes, bases[0], tensors[bases[0]].shape)


def _change(
    module: str, leaves: Module, shapes: Mapping[str, Shape], base: str, of_base: Shape
) -> Iterator[FactorGroup]:
    factors = {joined(module, leaf): shape for leaf, shape in shapes.items() if joined(module, leaf) != base}
    rank = _rank(of_base, list(factors.values())) or 0
    if not any(spec.shape == (rank,) for spec in leaves.values()):  # the bias of a layer, which no factor has
        yield FactorGroup(tuple(factors), rank, base)


def pairs_of(tensors: Mapping[str, TensorSpec]) -> Iterator[FactorGroup]:
    """Yield pairs of matrices that share a dimension and are alone in a module."""
    for module, leaves in groups_of(tensors).items():
        shapes = _matrices(leaves)
        if len(shapes) != 2 or any(len(shape) != 2 for shape in shapes.values()):
            continue
        one, other = shapes.values()
        for rank in sorted({*one} & {*other}):
            sides = [_side(shape, rank) for shape in (one, other)]
            between = [leaf for leaf, spec in leaves.items() if spec.shape == (rank,)]
            if rank > min(sides) or len(between) > 1:
                continue
            outputs = [shape[0] for shape in (one, other) if shape[1] == rank]
            beside = [spec.shape for leaf, spec in leaves.items() if leaf not in shapes]
            multiply = len(outputs) == 1 and rank < min(sides) and beside in ([], [(outputs[0],)])
            is_bare = multiply and not any("." in leaf for leaf in shapes)
            names = tuple(joined(module, leaf) for leaf in shapes)
            yield FactorGroup(names, rank, None, joined(module, between[0]) if between else None, is_bare)


def groups_of(tensors: Mapping[str, TensorSpec]) -> dict[str, dict[str, TensorSpec]]:
    """Return the tensors of each module and of its children: `down.weight` and `p` of `fc`."""
    groups: dict[str, dict[str, TensorSpec]] = {}
    for module, leaves in modules_of(tensors).items():
        parent, _, child = module.rpartition(".")
        groups.setdefault(module, {}).update(leaves)
        if module:
            groups.setdefault(parent, {}).update({joined(child, leaf): spec for leaf, spec in leaves.items()})
    return groups


def _matrices(leaves: Module) -> dict[str, Shape]:
    return {leaf: spec.shape for leaf, spec in leaves.items() if len(spec.shape) > 1}


def _rank(base: Shape, factors: Sequence[Shape]) -> int | None:
    """Return the rank of the factors' product if it has the base's shape, 0 for a Kronecker product; else None."""
    if len({len(base), *map(len, factors)}) == 1:
        if len({base[0], *(shape[0] for shape in factors)}) == 1:  # a stack, such as of experts
            return _low_rank(base[1:], [shape[1:] for shape in factors]) if len(base) == 3 else None
        if len(factors) == 2 and base == tuple(map(math.prod, zip(*factors, strict=True))):
            return 0 if max(map(math.prod, factors)) < math.prod(base) else None
    return _low_rank(_flat(base), [_flat(shape) for shape in factors])  # a convolution's kernel belongs to its inputs


def _low_rank(base: Shape, factors: Sequence[Shape]) -> int | None:
    sides = sorted(base * (len(factors) // 2))
    for rank in sorted(set(factors[0]).intersection(*factors)):
        if rank < min(base) and sorted(_side(shape, rank) for shape in factors) == sides:
            return rank
    return None


def _flat(shape: Shape) -> Shape:
    return shape[0], math.prod(shape[1:])


def _side(shape: Shape, rank: int) -> int:
    """Return the other dimension of a matrix."""
    return shape[1] if shape[0] == rank else shape[0]


def _is_decomposed(checkpoint: Checkpoint, pair: FactorGroup) -> bool:
    """Whether the leading vectors of both factors are at right angles, and their lengths fall."""
    leading = min(LEADING, pair.rank)
    if leading < FEWEST or max(checkpoint.tensors[name].numel for name in pair.names) > LARGEST:
        return False
    lengths_k = [1.0] * leading
    for name in sorted(pair.names, key=lambda name: checkpoint.tensors[name].shape[0] != pair.rank):  # rows first
        vectors_kn = _vectors(checkpoint, name, pair.rank, leading)
        with quiet(library_of(vectors_kn)):  # infinities and NaNs are at no angle
            gram_kk, most = (vectors_kn @ vectors_kn.T).tolist(), UPRIGHT / vectors_kn.shape[1] ** 0.5
        found_k = [gram_kk[k][k] ** 0.5 for k in range(leading)]
        if not all(abs(gram_kk[k][j]) <= most * found_k[k] * found_k[j] for k in range(leading) for j in range(k)):
            return False
        lengths_k = [length * own for length, own in zip(lengths_k, found_k, strict=True)]
    if pair.between is not None:
        values = read_numbers(checkpoint, pair.between, 0, leading).tolist()
        lengths_k = [length * value for length, value in zip(lengths_k, values, strict=True)]
    return all(0 <= later < length * FALLS for length, later in pairwise(lengths_k))


def _vectors(checkpoint: Checkpoint, name: str, rank: int, leading: int) -> Array:
    """Return the leading vectors of a factor: array[k, o] or array[k, i]."""
    rows, columns = checkpoint.tensors[name].shape
    if rows == rank:
        return read_numbers(checkpoint, name, 0, leading * columns).reshape(leading, columns)
    return read_numbers(checkpoint, name, 0, rows * columns).reshape(rows, columns)[:, :leading].T
