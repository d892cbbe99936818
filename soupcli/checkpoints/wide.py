"""Reads ingredients whose tensors are computed as exactly as their mean, and a gradient through it, needs.

An adapter's weight is W + s B A, rounded to the base's dtype when it is read. In bfloat16 the product may be only a few
units in the last place of W: the rounding of each would change a mean's distance from W, and a coefficient's gradient,
by a tenth. The mean of a group is rounded as well.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from soupcli.checkpoints.adapters.adapter import AdapterCheckpoint
from soupcli.checkpoints.dtype import Dtype
from soupcli.checkpoints.groups import CheckpointGroup
from soupcli.checkpoints.tensor_filter import FilteredCheckpoint

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from soupcli.checkpoints.checkpoint import Checkpoint, TensorSpec

_known: WeakKeyDictionary[Checkpoint, Checkpoint] = WeakKeyDictionary()


def widened(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with computed tensors in float32 or wider, the same object each time.

    Stored tensors are unchanged.
    """
    found = _known.get(checkpoint)
    if found is None:
        found = _known[checkpoint] = _widened(checkpoint)
    return found


def _widened(checkpoint: Checkpoint) -> Checkpoint:
    if isinstance(checkpoint, CheckpointGroup):
        return replace(checkpoint, members=tuple(map(widened, checkpoint.members)), is_wide=True)
    if isinstance(checkpoint, FilteredCheckpoint):
        own = widened(checkpoint.own)
        if own is checkpoint.own:
            return checkpoint
        tensors = {name: checkpoint.tensors[name] for name in checkpoint.taken}
        kept = {name: spec for name, spec in own.tensors.items() if name in checkpoint.tensors}
        return replace(checkpoint, own=own, tensors={**kept, **tensors})
    if isinstance(checkpoint, AdapterCheckpoint):
        computed = checkpoint.factors.keys() | checkpoint.biases.keys()
        return replace(checkpoint, tensors=_wide(checkpoint.tensors, computed))
    return checkpoint


def _wide(tensors: Mapping[str, TensorSpec], computed: Collection[str]) -> dict[str, TensorSpec]:
    return {
        name: spec._replace(dtype=spec.dtype.common(Dtype.FLOAT32)) if name in computed else spec
        for name, spec in tensors.items()
    }
