"""Whether the neurons of two networks are the same ones in another order: rows of a matrix that are found elsewhere.

A network computes the same if hidden neurons are exchanged, with the rows and columns that go into and out of them.
The mean of two such networks computes nothing (Entezari et al. 2022, "The Role of Permutation Invariance in Linear
Mode Connectivity of Neural Networks", arXiv:2110.06296).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import torch

from soupcli.checkpoints.checkpoint import read_part
from soupcli.networks.geometry import layers_by_name

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.diagnosis.facts import Spread

FEWEST, MOST = 6, 4096  # rows of a matrix that is looked at
LARGEST = 1 << 24  # elements
ALIKE = 0.7  # cosine of a row and its counterpart
SHARE = 0.6  # of the rows that have their counterpart elsewhere
MATRICES = 8
ACROSS = 30.0  # degrees between layers that may be reordered


def reordered_matrix(one: Checkpoint, other: Checkpoint, names: Sequence[str]) -> str | None:
    """The first of these matrices most of whose rows stand in other places in the other network."""
    fitting = [name for name in names if _fits(one, name)]
    return next((name for name in fitting[:MATRICES] if _is_reordered(one, other, name)), None)


def reordered_pairs(checkpoints: Sequence[Checkpoint], spread: Spread) -> dict[tuple[int, int], str]:
    """Pairs, each with a matrix of a layer that stands across between them, whose rows stand in other places."""
    found: dict[tuple[int, int], str] = {}
    for one, other in combinations(range(len(checkpoints)), 2):
        angle_l = spread.angle_lkk[:, one, other].nan_to_num(0.0).tolist()
        across = {layer for layer, angle in zip(spread.layers, angle_l, strict=True) if angle > ACROSS}
        layers = layers_by_name(checkpoints[one].tensors)
        names = [name for layer in layers if layer in across for name in layers[layer]]
        name = reordered_matrix(checkpoints[one], checkpoints[other], names) if names else None
        if name is not None:
            found[one, other] = name
    return found


def _fits(checkpoint: Checkpoint, name: str) -> bool:
    spec = checkpoint.tensors[name]
    rows = spec.shape[0] if spec.shape else 0
    if len(spec.shape) < 2 or not spec.dtype.is_floating_point:
        return False
    return FEWEST <= rows <= MOST and spec.numel <= LARGEST and spec.numel >= 3 * rows


def _is_reordered(one: Checkpoint, other: Checkpoint, name: str) -> bool:
    rows = []
    for checkpoint in (one, other):
        spec = checkpoint.tensors[name]
        values = read_part(checkpoint, name, 0, spec.numel).view(spec.shape[0], -1).to(torch.float32)
        values = values - values.mean(dim=0)
        rows.append(values / values.norm(dim=1, keepdim=True).clamp(min=1e-12))
    cosine_rr = rows[0] @ rows[1].T
    found = cosine_rr.max(dim=1)
    own = cosine_rr.diagonal()
    elsewhere = (found.values > ALIKE) & (found.values > own + 0.1)
    return bool(elsewhere.to(torch.float64).mean() > SHARE) and len(found.indices[elsewhere].unique()) > 0.8 * int(
        elsewhere.sum()
    )
