"""Tensors that may hold infinities: masks, bounds and what is not mixed. In a weight they are a training's failure.

checkpoints = with_constants(checkpoints, selection)
"mask" in checkpoints[0].constants                        # asked only if the tensor is not finite
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from soupcli.checkpoints.checkpoint import read_part
from soupcli.checkpoints.compare.differences import same_in_all

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.checkpoints.tensor_filter import TensorFilter

FEW = 3  # numbers that a mask is made of
CHUNK = 1 << 20  # elements that are looked at once


class Everything:
    """Contains every name."""

    def __contains__(self, name: object) -> bool:
        return True


class Constants:
    """Contains the names of tensors that need not be finite, found when they are asked for.

    Those are what is not mixed, what is the same bit for bit in all checkpoints, and masks: tensors of a few different
    numbers, infinities among them.
    """

    def __init__(self, checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> None:
        self._checkpoints, self._selection = checkpoints, selection
        self._known: dict[str, bool] = {}

    def __contains__(self, name: object) -> bool:
        assert isinstance(name, str)
        if name not in self._known:
            self._known[name] = self._is_constant(name)
        return self._known[name]

    def _is_constant(self, name: str) -> bool:
        if not self._selection.mixes(name):
            return True
        several = len(self._checkpoints) > 1
        holders = [one for one in self._checkpoints if name in one.tensors]
        return (several and same_in_all(self._checkpoints, name)) or all(is_mask(one, name) for one in holders)


def is_mask(checkpoint: Checkpoint, name: str) -> bool:
    """Whether a tensor holds but a few different numbers and no NaN."""
    numel, found = checkpoint.tensors[name].numel, torch.empty(0, dtype=torch.float64)
    for start in range(0, numel, CHUNK):
        part = read_part(checkpoint, name, start, min(CHUNK, numel - start)).to(torch.float64)
        found = torch.cat([found, part.unique()]).unique()
        if bool(part.isnan().any()) or len(found) > FEW:
            return False
    return True


def with_constants(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> list[Checkpoint]:
    """The checkpoints, each marked with its tensors that need not be finite."""
    constants = Constants(checkpoints, selection)
    return [with_these(one, constants) for one in checkpoints]


def with_these(checkpoint: Checkpoint, constants: Container[str]) -> Checkpoint:
    """The checkpoint, in which these tensors need not be finite."""
    known: Any = checkpoint
    changed: Checkpoint = replace(known, constants=constants)
    return changed
