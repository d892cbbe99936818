"""Tensors that may hold infinities: masks, bounds and unmixed tensors. In a weight an infinity is a failed training.

checkpoints = with_constants(checkpoints, selection)
"mask" in checkpoints[0].constants                        # asked only if the tensor is not finite
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from soupcli.checkpoints.compare.differences import same_in_all
from soupcli.checkpoints.numbers import parts_of, read_numbers
from soupcli.mixing.arithmetic.arrays import library_of

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.checkpoints.tensor_filter import TensorFilter
    from soupcli.mixing.arithmetic.arrays import Array

CHUNK = 1 << 20  # elements that are looked at once


class Everything:
    """Contains every name."""

    def __contains__(self, name: object) -> bool:
        return True


class Constants:
    """Contains the names of tensors that need not be finite. Each name is examined when it is looked up.

    These are tensors that are not mixed, or the same numbers in all checkpoints. In a single checkpoint they are
    masks, which hold only zeros and infinities.
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
        holders = [one for one in self._checkpoints if name in one.tensors]
        if len(self._checkpoints) == 1:
            return is_mask(holders[0], name)
        return same_in_all(self._checkpoints, name) or same_numbers(self._checkpoints, name)


def same_numbers(checkpoints: Sequence[Checkpoint], name: str) -> bool:
    """Whether all checkpoints have the tensor with the same shape and numbers, whatever their dtypes and bits.

    0 and -0 are one number, and so are all NaN. It ends at the first difference, which a few numbers mostly show.
    """
    first, *others = checkpoints
    specs = [one.tensors.get(name) for one in checkpoints]
    if any(spec is None or spec.shape != first.tensors[name].shape for spec in specs):
        return False
    return all(
        _are_same(part, other)
        for one in others
        for part, other in zip(parts_of(first, name), parts_of(one, name), strict=True)
    )


def _are_same(part: Array, other: Array) -> bool:
    return bool(((part == other) | ((part != part) & (other != other))).all())


def way_out(checkpoint: Checkpoint, name: str) -> str:
    """Return the hint for a tensor that is not finite and not the same in all."""
    if is_mask(checkpoint, name):
        return f"a mask is not averaged: --take {name} takes one ingredient's"
    return "its training diverged: leave this ingredient out"


def is_mask(checkpoint: Checkpoint, name: str) -> bool:
    """Whether a tensor holds only zeros and infinities."""
    numel = checkpoint.tensors[name].numel
    for start in range(0, numel, CHUNK):
        part = read_numbers(checkpoint, name, start, min(CHUNK, numel - start))
        if not bool((library_of(part).isinf(part) | (part == 0)).all()):
            return False
    return True


def with_constants(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> list[Checkpoint]:
    """Return the checkpoints, each marked with its tensors that need not be finite."""
    constants = Constants(checkpoints, selection)
    return [with_these(one, constants) for one in checkpoints]


def with_these(checkpoint: Checkpoint, constants: Container[str]) -> Checkpoint:
    """Return the checkpoint with these tensors marked as not needing to be finite."""
    known: Any = checkpoint
    changed: Checkpoint = replace(known, constants=constants)
    return changed
