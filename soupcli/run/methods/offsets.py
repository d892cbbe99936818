"""Inner products of checkpoints' offsets from one of them, for commands that measure angles and planes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from soupcli.errors import CheckpointError
from soupcli.networks.geometry import measure
from soupcli.progress import Progress, silent

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.mixing.arithmetic.arrays import Array


def inner_products(origin: Checkpoint, others: Sequence[Checkpoint], *, progress: Progress = silent) -> Array:
    """Return inner products of the offsets of `others` from `origin`, float64 [k, k], over all real floating tensors.

    Raises CheckpointError if a checkpoint holds a NaN or an infinity.
    """
    names = [name for name, spec in origin.tensors.items() if spec.dtype.is_floating_point]
    geometry = measure([origin, *others], {"all": names}, progress=progress)
    for bad in geometry.not_finite:
        checkpoint = [origin, *others][bad.checkpoint]
        if bad.name in checkpoint.constants:
            continue
        raise CheckpointError(
            f"{checkpoint.path}: tensor {bad.name!r} holds {bad.value} at element {bad.element}",
            hint="this checkpoint is damaged, or its training diverged: leave it out",
        )
    return geometry.about(0).sum(0)
