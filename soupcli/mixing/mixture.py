"""A soup as members and weights, before it is written. Members that cannot be mixed are refused here.

    check_mixable(members)
    mixture = Mixture.uniform(members)
    mean = mix(mixture, "head.weight", start=0, count=4096)          # Tensor[4096] of the output dtype

Floating tensors are averaged as average.py says: exactly, and rounded once. Integers and booleans never are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING

from soupcli.checkpoints.checkpoint import Checkpoint, TensorSpec, read_bits, read_part
from soupcli.checkpoints.dtype import Dtype
from soupcli.checkpoints.groups import members_of
from soupcli.checkpoints.wide import widened
from soupcli.files.reading import memory_of
from soupcli.late import torch
from soupcli.mixing.average import Averager
from soupcli.mixing.terms import Terms, chunks

if TYPE_CHECKING:
    from torch import Tensor


CHUNK = 1 << 18  # elements that are compared at once


@dataclass(frozen=True)
class Mixture:
    """A soup before it is written: members in the order of acceptance, and their weights, which sum to 1.

    `dtype` is the dtype of averaged tensors, by default the members' own, which complex tensors keep. `keep_from`, by
    default the first member, gives the tensors that are not averaged. `coefficients` gives some tensors, by name, other
    weights than `weights` (a learned soup's layers); such a tensor is scaled by their sum. A group is replaced by its
    checkpoints.
    """

    members: tuple[Checkpoint, ...]
    weights: tuple[float, ...]
    dtype: Dtype | None = None
    keep_from: Checkpoint | None = None
    coefficients: Mapping[str, tuple[float, ...]] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        """Replace groups by their members."""
        if not any(one.members for one in (*self.members, self.kept)):
            return
        sizes = [len(members_of(member)) for member in self.members]
        coefficients = self.coefficients and {n: shared_out(row, sizes) for n, row in self.coefficients.items()}
        kept = self.kept
        parts = {
            "members": tuple(one for member in self.members for one in members_of(member)),
            "weights": shared_out(self.weights, sizes),
            "keep_from": kept.members[-1] if kept.members else self.keep_from,
            "coefficients": coefficients,
        }
        for name, value in parts.items():
            object.__setattr__(self, name, value)  # it is frozen

    @classmethod
    def uniform(
        cls, members: Sequence[Checkpoint], *, dtype: Dtype | None = None, keep_from: Checkpoint | None = None
    ) -> Mixture:
        """Return the plain mean of `members`."""
        return cls(tuple(members), (1.0 / len(members),) * len(members), dtype, keep_from)

    @property
    def is_uniform(self) -> bool:
        """Whether all weights are equal and sum to 1, so that the mean is the sum divided once."""
        return len(set(self.weights)) == 1 and scale_of(self.weights) == 1.0 and self.coefficients is None

    @property
    def is_one_network(self) -> bool:
        """Whether the mixture is one unchanged checkpoint."""
        return len(self.members) == 1 and self.is_uniform

    @property
    def kept(self) -> Checkpoint:
        """The checkpoint that gives integers and booleans."""
        return self.keep_from if self.keep_from is not None else self.members[0]

    def spec(self, name: str) -> TensorSpec:
        """Return shape and dtype of tensor `name` in the soup."""
        specs = [member.tensors[name] for member in self.members]
        if not specs[0].dtype.is_averaged:
            return self.kept.tensors[name]
        own = reduce(Dtype.common, (spec.dtype for spec in specs))
        return TensorSpec(specs[0].shape, own if self.dtype is None or own.is_complex else self.dtype)

    def weights_of(self, name: str) -> tuple[float, ...]:
        """Return the members' weights in tensor `name`."""
        return self.weights if self.coefficients is None else self.coefficients.get(name, self.weights)

    def terms(self, name: str) -> Terms:
        """Return the terms of the mean of tensor `name`, whose dtype must be averaged."""
        weights = self.weights_of(name)
        uniform = self.is_uniform or set(weights) == {1.0 / len(weights)}
        weighed = None if uniform else weights
        return Terms.of(name, self.read_members, weights=weighed, dtype=self.spec(name).dtype)

    @property
    def read_members(self) -> tuple[Checkpoint, ...]:
        """The members as they are read: if there are several, what they compute is not rounded before it is mixed."""
        return tuple(map(widened, self.members)) if len(self.members) > 1 else self.members

    def ordered(self, name: str | None = None) -> list[tuple[Checkpoint, float]]:
        """Return members and their weights in tensor `name` in the order of summation, whatever their own order."""
        weights = self.weights if name is None else self.weights_of(name)
        return sorted(zip(self.members, weights, strict=True), key=lambda pair: str(pair[0].path))


def mix(mixture: Mixture, name: str, *, start: int, count: int) -> Tensor:
    """Return elements `start` to `start + count` of the soup's tensor `name`: Tensor[count] of the output dtype.

    Raises MixError if an ingredient holds a NaN or an infinity, or if the output dtype cannot hold the mean.
    """
    spec = mixture.spec(name)
    if not spec.dtype.is_averaged:
        return read_part(mixture.kept, name, start, count)
    out = torch.empty(count, dtype=spec.dtype.torch)
    memory, itemsize = memory_of(out), spec.dtype.itemsize
    terms, averager = mixture.terms(name), Averager()
    for first, length in chunks(terms, count):
        memory[first * itemsize : (first + length) * itemsize] = averager.mean(terms, start + first, length)
    return out


def shared_out(weights: Sequence[float], sizes: Sequence[int]) -> tuple[float, ...]:
    """Divide the weight of each group evenly among its members, whose numbers are `sizes`.

    Equal weights are equal to the last bit, so that their mean is the sum divided once.
    """
    if len(set(sizes)) == len(set(weights)) == 1 and scale_of(weights) == 1.0:
        return (1.0 / sum(sizes),) * sum(sizes)
    return tuple(weight / size for weight, size in zip(weights, sizes, strict=True) for _ in range(size))


def scale_of(weights: Sequence[float]) -> float:
    """Return the sum of weights: 1 if they sum to 1 up to rounding, or a temperature that was folded into them."""
    total = math.fsum(weights)
    return 1.0 if abs(total - 1.0) < 1e-12 else total


def differing(mixture: Mixture) -> list[str]:
    """Return the names of integer and boolean tensors that differ between members."""
    names = [name for name, spec in mixture.kept.tensors.items() if not spec.dtype.is_averaged]
    return [name for name in names if _differs(mixture, name)]


def _differs(mixture: Mixture, name: str) -> bool:
    kept_spec = mixture.kept.tensors[name]
    if any(member.tensors[name] != kept_spec for member in mixture.members):
        return True
    numel = kept_spec.numel
    for start in range(0, numel, CHUNK):
        count = min(CHUNK, numel - start)
        kept = read_bits(mixture.kept, name, start, count)
        if any(read_bits(member, name, start, count) != kept for member in mixture.members):
            return True
    return False
