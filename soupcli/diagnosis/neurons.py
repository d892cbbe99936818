"""Tests whether two networks have the same neurons in another order, by rows of a matrix found in other places.

A network computes the same if hidden neurons are exchanged together with the rows and columns that go into and out of
them. The mean of two such networks is useless (Entezari et al. 2022, "The Role of Permutation Invariance in Linear Mode
Connectivity of Neural Networks", arXiv:2110.06296).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from soupcli.checkpoints.numbers import read_numbers
from soupcli.mixing.arithmetic.arrays import Array, cast, library_of
from soupcli.networks.layer_names import layers_by_name

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.diagnosis.spread import WeightDistances

FEWEST, MOST = 6, 4096  # rows of a matrix that is looked at
LARGEST = 1 << 24  # elements
ALIKE = 0.7  # cosine of a row and its counterpart
SHARE = 0.6  # of the rows that have their counterpart elsewhere
CLOSER = 0.1  # by so much closer than the row in its own place
MATRICES = 4
MANY = 12  # matrices whose rows are measured
SOME = 256
SHORTEST = 1e-12  # length of a row that is divided by it
ACROSS = 30.0  # degrees between layers that may be reordered


def reordered_matrix(one: Checkpoint, other: Checkpoint, names: Sequence[str]) -> str | None:
    """Return the first of these matrices whose rows are mostly in other places in the other network, or None."""
    fitting = [name for name in names if _fits(one, name) and _shape(other, name) == _shape(one, name)]
    return next((name for name in fitting[:MATRICES] if _is_reordered(one, other, name)), None)


def reordered_pairs(checkpoints: Sequence[Checkpoint], spread: WeightDistances) -> dict[tuple[int, int], str]:
    """Return pairs of networks, each with a matrix at a wide angle whose rows are in other places.

    Every network is compared with the first one, and those that differ from it with one another.
    """
    found = _reordered(checkpoints, spread, 0, range(1, len(checkpoints)))
    others = [other for _, other in found]
    return found | _reordered(checkpoints, spread, others[0], others[1:2]) if others else found


def _reordered(
    checkpoints: Sequence[Checkpoint], spread: WeightDistances, one: int, others: Sequence[int]
) -> dict[tuple[int, int], str]:
    """Return the pairs of one network with others that have such a matrix."""
    if not spread.layers:
        return {}
    across_lk = spread.angle_lkk.rows(one, one + 1)[:, 0] > ACROSS
    members = layers_by_name(checkpoints[one].tensors)
    found: dict[tuple[int, int], str] = {}
    for other in others:
        layers = {layer for layer, across in zip(spread.layers, across_lk[:, other].tolist(), strict=True) if across}
        names = [name for layer, inside in members.items() if layer in layers for name in inside]
        name = reordered_matrix(checkpoints[one], checkpoints[other], names) if names else None
        if name is not None:
            found[one, other] = name
    return found


def rows_beyond(base: Checkpoint, checkpoints: Sequence[Checkpoint]) -> float | None:
    """Return the share of the base's rows that are longer or shorter than the same row of every checkpoint, or None.

    Training changes most rows' lengths in one direction: a start has its rows at the end of the range. One more run
    has one of its `k + 1` places by chance, and is beyond the others in 2 of them.
    """
    beyond_r: list[bool] = []
    shared = [name for name in base.tensors if all(_shape(one, name) == _shape(base, name) for one in checkpoints)]
    for name in [name for name in shared if _fits(base, name)][:MANY]:
        length_r, *others = (_lengths(_rows(one, name)) for one in (base, *checkpoints))
        xp = library_of(length_r)
        lengths_kr = xp.stack(others)
        beyond_r += ((length_r < xp.amin(lengths_kr, axis=0)) | (length_r > xp.amax(lengths_kr, axis=0))).tolist()
    return sum(beyond_r) / len(beyond_r) if beyond_r else None


def _shape(checkpoint: Checkpoint, name: str) -> tuple[int, ...] | None:
    """Return a tensor's shape; None if there is none, as in an adapter of another base."""
    spec = checkpoint.tensors.get(name)
    return spec.shape if spec is not None else None


def _fits(checkpoint: Checkpoint, name: str) -> bool:
    spec = checkpoint.tensors[name]
    rows = spec.shape[0] if spec.shape else 0
    if len(spec.shape) < 2 or not spec.dtype.is_floating_point:
        return False
    return FEWEST <= rows <= MOST and spec.numel <= LARGEST and spec.numel >= 3 * rows


def _is_reordered(one: Checkpoint, other: Checkpoint, name: str) -> bool:
    """Whether most of up to `SOME` rows of one matrix are found in the other, each in a different place."""
    rows_rn, others_rn = _unit_rows(one, name), _unit_rows(other, name)
    xp = library_of(rows_rn)
    places_s = xp.arange(0, len(rows_rn), -(-len(rows_rn) // SOME))
    cosine_sr = rows_rn[places_s] @ others_rn.T
    own_s = cosine_sr[range(len(places_s)), places_s]
    most_s = xp.amax(cosine_sr, axis=1)
    elsewhere_s = (most_s > ALIKE) & (most_s > own_s + CLOSER)
    found = int(elsewhere_s.sum())
    distinct = len(set(cosine_sr.argmax(axis=1)[elsewhere_s].tolist()))
    return found > SHARE * len(places_s) and distinct > 0.8 * found


def _rows(checkpoint: Checkpoint, name: str) -> Array:
    """Return a tensor as rows of numbers, in float32."""
    spec = checkpoint.tensors[name]
    return cast(read_numbers(checkpoint, name, 0, spec.numel).reshape(spec.shape[0], -1), "float32")


def _lengths(rows_rn: Array) -> Array:
    return library_of(rows_rn).linalg.norm(rows_rn, axis=1)


def _unit_rows(checkpoint: Checkpoint, name: str) -> Array:
    """Return rows minus their mean, each scaled to length 1."""
    rows_rn = _rows(checkpoint, name)
    rows_rn = rows_rn - rows_rn.mean(axis=0)
    return rows_rn / _lengths(rows_rn).clip(min=SHORTEST)[:, None]
