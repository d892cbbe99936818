"""Which checkpoints a soup is made of and how much of each; what cannot be mixed is refused here.

    check_mixable(members)
    mixture = Mixture.uniform(members)
    mean = mix(mixture, "head.weight", start=0, count=4096)          # Tensor[4096] of the output dtype

Floating tensors are averaged as averaging.py says: exactly, and rounded once. Integers and booleans never are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from soupcli.checkpoints.checkpoint import Checkpoint, TensorSpec, read_part
from soupcli.checkpoints.groups import CheckpointGroup, members_of
from soupcli.late import torch
from soupcli.mixing.average import Averager
from soupcli.mixing.terms import Terms, chunks

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.checkpoints.dtype import Dtype

CHUNK = 1 << 18  # elements that are compared at once


@dataclass(frozen=True)
class Mixture:
    """A soup before it is written: members in the order of acceptance and the weight of each, which sum to 1.

    `dtype` is the dtype of averaged tensors, None: the members' own. `keep_from` gives the tensors that are not
    averaged, None: the first member does. `coefficients` gives some tensors, by name, other weights of the members
    than `weights` (a learned soup's layers); their sum is what the tensor is scaled by. A member that is a group of
    checkpoints is taken apart into them: `members` has none.
    """

    members: tuple[Checkpoint, ...]
    weights: tuple[float, ...]
    dtype: Dtype | None = None
    keep_from: Checkpoint | None = None
    coefficients: Mapping[str, tuple[float, ...]] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        """Takes groups apart."""
        if not any(isinstance(one, CheckpointGroup) for one in (*self.members, self.keep_from)):
            return
        sizes = [len(members_of(member)) for member in self.members]
        coefficients = self.coefficients and {n: shared_out(row, sizes) for n, row in self.coefficients.items()}
        kept = self.kept
        parts = {
            "members": tuple(one for member in self.members for one in members_of(member)),
            "weights": shared_out(self.weights, sizes),
            "keep_from": kept.last if isinstance(kept, CheckpointGroup) else self.keep_from,
            "coefficients": coefficients,
        }
        for name, value in parts.items():
            object.__setattr__(self, name, value)  # it is frozen

    @classmethod
    def uniform(
        cls, members: Sequence[Checkpoint], *, dtype: Dtype | None = None, keep_from: Checkpoint | None = None
    ) -> Mixture:
        """The plain mean of `members`."""
        return cls(tuple(members), (1.0 / len(members),) * len(members), dtype, keep_from)

    @property
    def is_uniform(self) -> bool:
        """Whether all weights are the same and sum to 1: then the mean is the sum divided once."""
        return len(set(self.weights)) == 1 and scale_of(self.weights) == 1.0 and self.coefficients is None

    @property
    def is_one_network(self) -> bool:
        """Whether it is one checkpoint as its file has it, and no mean."""
        return len(self.members) == 1 and self.is_uniform

    @property
    def kept(self) -> Checkpoint:
        """The member whose integers and booleans are taken."""
        return self.keep_from if self.keep_from is not None else self.members[0]

    def spec(self, name: str) -> TensorSpec:
        """Shape and dtype of tensor `name` in the soup."""
        specs = [member.tensors[name] for member in self.members]
        if not specs[0].dtype.is_averaged:
            return self.kept.tensors[name]
        dtype = self.dtype or specs[0].dtype
        if self.dtype is None:
            for spec in specs[1:]:
                dtype = dtype.common(spec.dtype)
        return TensorSpec(specs[0].shape, dtype)

    def weights_of(self, name: str) -> tuple[float, ...]:
        """The members' weights in tensor `name`."""
        return self.weights if self.coefficients is None else self.coefficients.get(name, self.weights)

    def terms(self, name: str) -> Terms:
        """What tensor `name` is the mean of; for dtypes that are averaged."""
        weights = self.weights_of(name)
        uniform = self.is_uniform or set(weights) == {1.0 / len(weights)}
        return Terms.of(name, self.members, weights=None if uniform else weights, dtype=self.spec(name).dtype.torch)

    def ordered(self, name: str | None = None) -> list[tuple[Checkpoint, float]]:
        """Members and weights (in tensor `name`) in the order in which they are summed, however they were given."""
        weights = self.weights if name is None else self.weights_of(name)
        return sorted(zip(self.members, weights, strict=True), key=lambda pair: str(pair[0].path))


def mix(mixture: Mixture, name: str, *, start: int, count: int) -> Tensor:
    """Elements `start` to `start + count` of the soup's tensor `name`: Tensor[count] of the output dtype.

    Raises MixError if an ingredient holds a NaN or an infinity, or if the output dtype cannot hold the mean.
    """
    spec = mixture.spec(name)
    if not spec.dtype.is_averaged:
        return read_part(mixture.kept, name, start, count)
    out = torch.empty(count, dtype=spec.dtype.torch)
    terms, averager = mixture.terms(name), Averager()
    for first, length in chunks(terms, count):
        out[first : first + length] = averager.mean(terms, start + first, length)
    return out


def shared_out(weights: Sequence[float], sizes: Sequence[int]) -> tuple[float, ...]:
    """The weights of groups, each divided evenly among the members of the group, of which there are `sizes`.

    Weights that come out the same are the same to the last bit, so that their mean is the sum divided once.
    """
    if len(set(sizes)) == len(set(weights)) == 1 and scale_of(weights) == 1.0:
        return (1.0 / sum(sizes),) * sum(sizes)
    return tuple(weight / size for weight, size in zip(weights, sizes, strict=True) for _ in range(size))


def scale_of(weights: Sequence[float]) -> float:
    """The sum of weights: 1 if they sum to 1 up to rounding, the temperature if one was folded into them."""
    total = math.fsum(weights)
    return 1.0 if abs(total - 1.0) < 1e-12 else total


def differing(mixture: Mixture) -> list[str]:
    """Names of integer and boolean tensors that are not the same in all members."""
    names = [name for name, spec in mixture.kept.tensors.items() if not spec.dtype.is_averaged]
    return [name for name in names if _differs(mixture, name)]


def _differs(mixture: Mixture, name: str) -> bool:
    kept_spec = mixture.kept.tensors[name]
    if any(member.tensors[name] != kept_spec for member in mixture.members):
        return True
    numel = kept_spec.numel
    for start in range(0, numel, CHUNK):
        count = min(CHUNK, numel - start)
        kept = read_part(mixture.kept, name, start, count)
        if any(not torch.equal(read_part(member, name, start, count), kept) for member in mixture.members):
            return True
    return False
