"""The mean of checkpoints, tensor by tensor: exact, rounded once, the same in any order.

    mixture = Mixture.uniform(members)
    check_mixable(members)
    mean = mix(mixture, "head.weight", start=0, count=4096)          # Tensor[4096] of the output dtype

Floating tensors are accumulated in float64 in the order of the members' paths and rounded once to the output dtype;
float64 itself is accumulated with the rounding error carried along (two-sum, Knuth, TAOCP 2, 4.2.2), so the result is
within half a unit in the last place plus 1e-3 of one. Integers and booleans are never averaged.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from soupcli.checkpoints.checkpoint import Checkpoint, TensorSpec
from soupcli.errors import MixError

CHUNK = 1 << 18  # elements: 2 MB of float64, which stays in a core's cache


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
        """Whether all weights are the same: then the mean is the sum divided once."""
        return len(set(self.weights)) == 1 and self.coefficients is None

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
                dtype = torch.promote_types(dtype, spec.dtype)
        return TensorSpec(specs[0].shape, dtype)

    def weights_of(self, name: str) -> tuple[float, ...]:
        """The members' weights in tensor `name`."""
        return self.weights if self.coefficients is None else self.coefficients.get(name, self.weights)

    def ordered(self, name: str | None = None) -> list[tuple[Checkpoint, float]]:
        """Members and weights (in tensor `name`) in the order in which they are summed, however they were given."""
        weights = self.weights if name is None else self.weights_of(name)
        return sorted(zip(self.members, weights, strict=True), key=lambda pair: str(pair[0].path))


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
            hint="these are different networks, or heads for different classes: leave one of them out",
        )
    if is_averaged(spec.dtype) != is_averaged(expected.dtype):
        raise MixError(
            f"{weights_file(other)}: tensor {name!r} has dtype {spec.dtype}, {first.path} has {expected.dtype}",
            hint="one of them was converted: save both in one dtype",
        )


def weights_file(checkpoint: Checkpoint) -> str:
    """The file to name in a message: the weights themselves where there is one file, else the folder."""
    return str(checkpoint.files[0].path if len(checkpoint.files) == 1 else checkpoint.path)


def chunks(numel: int) -> Iterator[tuple[int, int]]:
    """(start, count) of the pieces in which a tensor of `numel` elements is mixed."""
    for start in range(0, numel, CHUNK):
        yield start, min(CHUNK, numel - start)


def mix(mixture: Mixture, name: str, *, start: int, count: int) -> Tensor:
    """Elements `start` to `start + count` of the soup's tensor `name`: Tensor[count] of the output dtype.

    Raises MixError where an ingredient holds a NaN or an infinity, and where the output dtype cannot hold the mean.
    """
    spec = mixture.spec(name)
    if not is_averaged(spec.dtype):
        return read_part(mixture.kept, name, start, count)
    mean = (_mean if mixture.is_uniform else _weighted)(mixture, name, start, count)
    if not bool(mean.isfinite().all()):
        _blame(mixture, name, start, count)
    out = mean.to(spec.dtype)
    narrowed = spec.dtype != mean.dtype and not bool(out.isfinite().all())
    if narrowed:
        raise MixError(
            f"tensor {name!r}: the mean reaches {mean.abs().max().item():.6g}, more than {spec.dtype} holds",
            hint="choose a wider --dtype, e.g. --dtype bfloat16",
        )
    return out


def _mean(mixture: Mixture, name: str, start: int, count: int) -> Tensor:
    """The mean in float64 (complex128): Tensor[count]."""
    compensated = mixture.spec(name).dtype in (torch.float64, torch.complex128)
    total = torch.zeros(count, dtype=_wide(mixture.spec(name).dtype))
    error = torch.zeros_like(total) if compensated else None
    for member, _ in mixture.ordered():
        term = read_part(member, name, start, count).to(total.dtype)
        if error is not None:
            rounded = total + term
            back = rounded - total
            error += (total - (rounded - back)) + (term - back)
            total = rounded
        else:
            total += term
    if error is not None:
        total += error
    return total.div_(len(mixture.members))


def _weighted(mixture: Mixture, name: str, start: int, count: int) -> Tensor:
    """Tensor[count] in float64 (complex128): the first member and the weighted offsets of the others from it.

    So members that are equal give themselves exactly, whatever their weights.
    """
    (first, _), *others = ordered = mixture.ordered(name)
    base = read_part(first, name, start, count).to(_wide(mixture.spec(name).dtype))
    total = base * scale_of([weight for _, weight in ordered])
    for member, weight in others:
        total += read_part(member, name, start, count).to(base.dtype).sub_(base).mul_(weight)
    return total


def scale_of(weights: Sequence[float]) -> float:
    """The sum of weights: 1 where they sum to 1 up to rounding, the temperature where one was folded into them."""
    total = math.fsum(weights)
    return 1.0 if abs(total - 1.0) < 1e-12 else total


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.complex128 if dtype.is_complex else torch.float64


def read_part(checkpoint: Checkpoint, name: str, start: int, count: int) -> Tensor:
    """Elements `start` to `start + count` of a stored tensor: Tensor[count] of the stored dtype."""
    part = torch.empty(count, dtype=checkpoint.tensors[name].dtype)
    checkpoint.read(name, part, start=start)
    return part


def _blame(mixture: Mixture, name: str, start: int, count: int) -> None:
    """Raises MixError naming the ingredient that holds the NaN or infinity."""
    for member, _ in mixture.ordered():
        part = read_part(member, name, start, count)
        bad = (~part.to(_wide(part.dtype)).isfinite()).nonzero()
        if len(bad):
            position = int(bad[0]) + start
            raise MixError(
                f"{weights_file(member)}: tensor {name!r} holds {part[int(bad[0])].item()} at element {position}",
                hint="its training diverged: leave this ingredient out",
            )
    raise MixError(f"tensor {name!r}: the sum of the ingredients overflows float64")


def differing(mixture: Mixture) -> list[str]:
    """Names of integer and boolean tensors that are not the same in all members."""
    names = [name for name, spec in mixture.kept.tensors.items() if not is_averaged(spec.dtype)]
    return [name for name in names if _differs(mixture, name)]


def _differs(mixture: Mixture, name: str) -> bool:
    for start, count in chunks(mixture.kept.tensors[name].numel):
        kept = read_part(mixture.kept, name, start, count)
        if any(not torch.equal(read_part(member, name, start, count), kept) for member in mixture.members):
            return True
    return False
