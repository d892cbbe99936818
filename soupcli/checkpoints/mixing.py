"""Which checkpoints a soup is made of and how much of each; what cannot be mixed is refused here.

    check_mixable(members)
    mixture = Mixture.uniform(members)
    mean = mix(mixture, "head.weight", start=0, count=4096)          # Tensor[4096] of the output dtype

Floating tensors are averaged as averaging.py says: exactly, and rounded once. Integers and booleans never are.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from soupcli.checkpoints.averaging import Averager
from soupcli.checkpoints.checkpoint import Checkpoint, TensorSpec, weights_file
from soupcli.checkpoints.terms import Terms, chunks
from soupcli.errors import MixError

CHUNK = 1 << 18  # elements that are compared at once


@dataclass(frozen=True)
class Mixture:
    """A soup before it is written: members in the order of acceptance and the weight of each, which sum to 1.

    `dtype` is the dtype of averaged tensors, None: the members' own. `keep_from` gives the tensors that are not
    averaged, None: the first member does. `coefficients` gives some tensors, by name, other weights of the members
    than `weights` (a learned soup's layers); their sum is what the tensor is scaled by.
    """

    members: tuple[Checkpoint, ...]
    weights: tuple[float, ...]
    dtype: torch.dtype | None = None
    keep_from: Checkpoint | None = None
    coefficients: Mapping[str, tuple[float, ...]] | None = field(default=None, hash=False)

    @classmethod
    def uniform(
        cls, members: Sequence[Checkpoint], *, dtype: torch.dtype | None = None, keep_from: Checkpoint | None = None
    ) -> Mixture:
        """The plain mean of `members`."""
        return cls(tuple(members), (1.0 / len(members),) * len(members), dtype, keep_from)

    @property
    def is_uniform(self) -> bool:
        """Whether all weights are the same and sum to 1: then the mean is the sum divided once."""
        return len(set(self.weights)) == 1 and scale_of(self.weights) == 1.0 and self.coefficients is None

    @property
    def kept(self) -> Checkpoint:
        """The member whose integers and booleans are taken."""
        return self.keep_from if self.keep_from is not None else self.members[0]

    def spec(self, name: str) -> TensorSpec:
        """Shape and dtype of tensor `name` in the soup."""
        specs = [member.tensors[name] for member in self.members]
        if not is_averaged(specs[0].dtype):
            return self.kept.tensors[name]
        dtype = self.dtype or specs[0].dtype
        if self.dtype is None:
            for spec in specs[1:]:
                dtype = common_dtype(dtype, spec.dtype)
        return TensorSpec(specs[0].shape, dtype)

    def weights_of(self, name: str) -> tuple[float, ...]:
        """The members' weights in tensor `name`."""
        return self.weights if self.coefficients is None else self.coefficients.get(name, self.weights)

    def terms(self, name: str) -> Terms:
        """What tensor `name` is the mean of; for dtypes that are averaged."""
        weights = self.weights_of(name)
        uniform = self.is_uniform or set(weights) == {1.0 / len(weights)}
        return Terms.of(name, self.members, weights=None if uniform else weights, dtype=self.spec(name).dtype)

    def ordered(self, name: str | None = None) -> list[tuple[Checkpoint, float]]:
        """Members and weights (in tensor `name`) in the order in which they are summed, however they were given."""
        weights = self.weights if name is None else self.weights_of(name)
        return sorted(zip(self.members, weights, strict=True), key=lambda pair: str(pair[0].path))


def common_dtype(one: torch.dtype, other: torch.dtype) -> torch.dtype:
    """The narrowest dtype that holds the numbers of both."""
    if one.itemsize > 1 and other.itemsize > 1:
        return torch.promote_types(one, other)
    if one == other:
        return one
    return torch.promote_types(*(torch.float16 if dtype.itemsize == 1 else dtype for dtype in (one, other)))


def is_averaged(dtype: torch.dtype) -> bool:
    """Whether tensors of this dtype are averaged; integers and booleans pass through."""
    return dtype.is_floating_point or dtype.is_complex


def check_mixable(checkpoints: Sequence[Checkpoint]) -> None:
    """Raises MixError at the first tensor that a checkpoint lacks, has alone, or has in another shape or kind."""
    first = checkpoints[0]
    for other in checkpoints[1:]:
        for name in first.tensors:
            if name not in other.tensors:
                near = difflib.get_close_matches(name, other.tensors, n=1)
                nearest = f", its nearest is {near[0]!r}" if near else ""
                raise MixError(
                    f"{weights_file(other)}: has no tensor {name!r}, {first.path} has{nearest}", hint=_HINT_NAMES
                )
        for name, spec in other.tensors.items():
            if name not in first.tensors:
                raise MixError(f"{weights_file(other)}: has tensor {name!r}, {first.path} has not", hint=_HINT_NAMES)
            _check_spec(first, other, name, spec)


_HINT_NAMES = "soups are made of checkpoints of one network: leave out the one that differs"


def _check_spec(first: Checkpoint, other: Checkpoint, name: str, spec: TensorSpec) -> None:
    expected = first.tensors[name]
    if spec.shape != expected.shape:
        raise MixError(
            f"{weights_file(other)}: tensor {name!r} has shape {list(spec.shape)}, "
            f"{first.path} has {list(expected.shape)}",
            hint="these are different networks: leave one of them out; or heads for different classes: "
            f"--exclude '{name.rpartition('.')[0] or name}.*' mixes all but them",
        )
    kinds = [(is_averaged(dtype), dtype.is_complex) for dtype in (spec.dtype, expected.dtype)]
    if kinds[0] != kinds[1]:
        raise MixError(
            f"{weights_file(other)}: tensor {name!r} has dtype {spec.dtype}, {first.path} has {expected.dtype}",
            hint="one of them was converted: save both in one dtype",
        )


def mix(mixture: Mixture, name: str, *, start: int, count: int) -> Tensor:
    """Elements `start` to `start + count` of the soup's tensor `name`: Tensor[count] of the output dtype.

    Raises MixError where an ingredient holds a NaN or an infinity, and where the output dtype cannot hold the mean.
    """
    spec = mixture.spec(name)
    if not is_averaged(spec.dtype):
        return read_part(mixture.kept, name, start, count)
    out = torch.empty(count, dtype=spec.dtype)
    terms, averager = mixture.terms(name), Averager()
    for first, length in chunks(terms, count):
        out[first : first + length] = averager.mean(terms, start + first, length)
    return out


def scale_of(weights: Sequence[float]) -> float:
    """The sum of weights: 1 where they sum to 1 up to rounding, the temperature where one was folded into them."""
    total = math.fsum(weights)
    return 1.0 if abs(total - 1.0) < 1e-12 else total


def read_part(checkpoint: Checkpoint, name: str, start: int, count: int) -> Tensor:
    """Elements `start` to `start + count` of a stored tensor: Tensor[count] of the stored dtype."""
    part = torch.empty(count, dtype=checkpoint.tensors[name].dtype)
    checkpoint.read(name, part, start=start)
    return part


def differing(mixture: Mixture) -> list[str]:
    """Names of integer and boolean tensors that are not the same in all members."""
    names = [name for name, spec in mixture.kept.tensors.items() if not is_averaged(spec.dtype)]
    return [name for name in names if _differs(mixture, name)]


def _differs(mixture: Mixture, name: str) -> bool:
    numel = mixture.kept.tensors[name].numel
    for start in range(0, numel, CHUNK):
        count = min(CHUNK, numel - start)
        kept = read_part(mixture.kept, name, start, count)
        if any(not torch.equal(read_part(member, name, start, count), kept) for member in mixture.members):
            return True
    return False
