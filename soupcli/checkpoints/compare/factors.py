"""Pairs of matrices whose product is a weight, or a change of one, by their shapes and numbers, whatever their names.

for pair in pairs_of(checkpoint.tensors):
    pair.names, pair.base                                 # two factors, and the matrix that their product may change
for together in factorised(checkpoints, selection):
    together.names                                        # factors whose mean is wrong

Two layers in sequence have such shapes too, and are mixed. So a pair counts as factors if it changes a matrix that is
the same in all, which a low-rank adapter leaves as it was, or if it is a singular value decomposition.

Shapes: o outputs and i inputs of the weight, r its rank, k leading vectors.
"""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.compare.constants import same_numbers
from soupcli.checkpoints.compare.weight_parts import Together, form_of_parts, joined, modules_of
from soupcli.checkpoints.numbers import read_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint, TensorSpec
    from soupcli.checkpoints.compare.weight_parts import Module
    from soupcli.checkpoints.tensor_filter import TensorFilter
    from soupcli.mixing.arithmetic.arrays import Array

LEADING = 8  # vectors that are looked at
FEWEST = 4  # of them: fewer are in order by chance
UPRIGHT = 0.02  # the cosine of vectors of a decomposition, rounded to bfloat16, is smaller
LARGEST = 1 << 26  # elements of a factor that is read as a whole
FALLS = 1 - 1e-4  # the quotient of lengths that are not the same but for rounding

ADAPTED = form_of_parts(
    "low rank",
    "one of two factors of a change of a weight that is the same in all",
    "add the products to the weights, and save these; or save LoRA adapters with PEFT's save_pretrained",
)
DECOMPOSED = form_of_parts(
    "decomposed",
    "one of two factors that a singular value decomposition made of a weight",
    "multiply the factors, and save the weights; or mix the networks from before, and decompose the soup",
)


class FactorPair(NamedTuple):
    """Two factors of a matrix[o, i]."""

    names: tuple[str, str]
    rank: int
    between: tuple[str, ...]  # vectors[r] beside them: singular values, or a bias
    base: str | None  # the matrix[o, i] beside them
    is_bare: bool  # whether they are parameters of one module that multiply as they are, and nothing else is


def pairs_of(tensors: Mapping[str, TensorSpec]) -> Iterator[FactorPair]:
    """Yield pairs of matrices that multiply to a low rank, alone in a module but for one of the product's shape."""
    groups: dict[str, dict[str, TensorSpec]] = {}
    for module, leaves in modules_of(tensors).items():
        parent, _, child = module.rpartition(".")
        groups.setdefault(module, {}).update(leaves)
        if module:
            groups.setdefault(parent, {}).update({joined(child, leaf): spec for leaf, spec in leaves.items()})
    for module, leaves in groups.items():
        matrices = {leaf: spec.shape for leaf, spec in leaves.items() if len(spec.shape) > 1}
        if 2 <= len(matrices) <= 3:
            above = groups.get(module.rpartition(".")[0], {}) if module else {}
            yield from _pairs_among(module, leaves, matrices, above)


def _pairs_among(
    module: str, leaves: Module, matrices: Mapping[str, tuple[int, ...]], above: Module
) -> Iterator[FactorPair]:
    parent = module.rpartition(".")[0]
    for one, other in combinations(matrices, 2):
        (rank, sides) = _ranked(matrices[one], matrices[other])
        if not rank:
            continue
        third = [joined(module, leaf) for leaf in matrices if leaf not in (one, other)]
        bases = [joined(module, leaf) for leaf, shape in matrices.items() if sorted(shape) == sides]
        if not third:
            bases = [joined(parent, leaf) for leaf, spec in above.items() if sorted(spec.shape) == sides]
        if third and third != bases:
            continue
        between = tuple(joined(module, leaf) for leaf, spec in leaves.items() if spec.shape == (rank,))
        multiply = rank in (matrices[one][1], matrices[other][1]) and rank in (matrices[one][0], matrices[other][0])
        is_bare = len(leaves) == 2 and multiply and "." not in one + other
        base = bases[0] if len(bases) == 1 else None
        yield FactorPair((joined(module, one), joined(module, other)), rank, between, base, is_bare)


def _ranked(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, list[int]]:
    """Return the dimension that two matrices share, if it is less than both others, and these; else 0."""
    rank = min({*one} & {*other}, default=0) if len(one) == len(other) == 2 else 0
    sides = sorted(shape[1] if shape[0] == rank else shape[0] for shape in (one, other)) if rank else []
    return (rank, sides) if rank and rank < sides[0] else (0, [])


def factorised(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> Iterator[Together]:
    """Yield the mixed pairs of factors that differ and whose mean is wrong."""
    for pair in _differing(checkpoints, selection):
        if pair.base is not None and not pair.between and same_numbers(checkpoints, pair.base):
            yield Together(ADAPTED, pair.names)
        elif all(_is_decomposed(one, pair) for one in checkpoints):
            yield Together(DECOMPOSED, pair.names)


def perhaps_factors(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> list[tuple[str, str]]:
    """Return the mixed pairs of parameters that differ and have nothing beside them, and so may be factors."""
    return [pair.names for pair in _differing(checkpoints, selection) if pair.is_bare]


def _differing(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> Iterator[FactorPair]:
    first = checkpoints[0]
    for pair in pairs_of(first.tensors) if not first.is_adapter else ():
        mixed = any(map(selection.mixes, pair.names)) and all(_has(one, first, pair) for one in checkpoints)
        if mixed and not all(same_numbers(checkpoints, name) for name in pair.names):
            yield pair


def _has(checkpoint: Checkpoint, first: Checkpoint, pair: FactorPair) -> bool:
    """Whether a checkpoint has the pair and what lies beside it, in the same shapes and as floating numbers."""
    names = [*pair.names, *pair.between, *([pair.base] if pair.base is not None else [])]
    specs = [(checkpoint.tensors.get(name), first.tensors[name]) for name in names]
    return all(own is not None and own.dtype.is_floating_point and own.shape == spec.shape for own, spec in specs)


def _is_decomposed(checkpoint: Checkpoint, pair: FactorPair) -> bool:
    """Whether the leading vectors of both factors are at right angles, and their lengths fall."""
    leading = min(LEADING, pair.rank)
    if leading < FEWEST or len(pair.between) > 1:
        return False
    lengths_k = [1.0] * leading
    for name in sorted(pair.names, key=lambda name: checkpoint.tensors[name].shape[0] != pair.rank):  # rows first
        if checkpoint.tensors[name].numel > LARGEST:
            return False
        vectors_kn = _vectors(checkpoint, name, pair.rank, leading)
        gram_kk = (vectors_kn @ vectors_kn.T).tolist()
        found_k = [gram_kk[k][k] ** 0.5 for k in range(leading)]
        if not all(abs(gram_kk[k][j]) < UPRIGHT * found_k[k] * found_k[j] for k in range(leading) for j in range(k)):
            return False
        lengths_k = [length * own for length, own in zip(lengths_k, found_k, strict=True)]
    for name in pair.between:
        values = read_numbers(checkpoint, name, 0, leading).tolist()
        lengths_k = [length * value for length, value in zip(lengths_k, values, strict=True)]
    return all(later < length * FALLS for length, later in pairwise(lengths_k))


def _vectors(checkpoint: Checkpoint, name: str, rank: int, leading: int) -> Array:
    """Return the leading vectors of a factor: array[k, o] or array[k, i]."""
    rows, columns = checkpoint.tensors[name].shape
    if rows == rank:
        return read_numbers(checkpoint, name, 0, leading * columns).reshape(leading, columns)
    return read_numbers(checkpoint, name, 0, rows * columns).reshape(rows, columns)[:, :leading].T
