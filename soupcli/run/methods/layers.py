"""Divides the mixed tensors into layers, or groups of layers, that have their own coefficients."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from soupcli.networks.layer_names import layers_by_name
from soupcli.wording import natural_order

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.run.run import Run

WHOLE = "model"


def mixed_layers(run: Run, checkpoint: Checkpoint, per: Literal["model", "layer", "tensor"]) -> dict[str, list[str]]:
    """Return the mixed real floating tensors, divided by `per`, in the order of the checkpoint."""
    names = [
        name
        for name, spec in checkpoint.tensors.items()
        if spec.dtype.is_averaged and not spec.dtype.is_complex and run.selection.mixes(name)
    ]
    if per == "layer":
        return layers_by_name(names)
    return {name: [name] for name in names} if per == "tensor" else {WHOLE: names}


def in_groups(layers: Mapping[str, Sequence[str]], groups: int) -> dict[str, list[str]]:
    """Return the layers in so many `groups` of consecutive layers, of sizes that are as equal as possible."""
    names = sorted(layers, key=natural_order)
    count = min(groups, len(names))
    ends = [len(names) * number // count for number in range(count + 1)]
    parts = [names[first:last] for first, last in pairwise(ends)]
    return {_named(part): [tensor for name in part for tensor in layers[name]] for part in parts}


def _named(part: Sequence[str]) -> str:
    return part[0] if len(part) == 1 else f"{part[0]} to {part[-1]}"
