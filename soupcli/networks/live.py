"""The one live network: weights go into it in place, from a running sum of the soup's members.

Memory on the device: the network, one sum in float64, one tensor of a checkpoint, whatever the number of ingredients.
A candidate is `(sum + candidate) / n` written into the network; the sum is untouched, so nothing is undone when the
candidate is rejected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.checkpoints.mixing import Mixture, is_averaged, weights_file
from soupcli.errors import MixError, NetworkError
from soupcli.network import Network


class LiveNetwork:
    """A network on its device and the mixture that it holds now."""

    def __init__(self, network: Network, device: torch.device, *, settle: Callable[[], None] | None = None) -> None:
        """`settle` is called after weights were loaded, e.g. to re-estimate batch-norm statistics."""
        self.network = network
        self.device = device
        self.settle = settle
        _materialise(network.module, device)
        self._slots = _slots(network.module)
        self._sum = _RunningSum(torch.device("cpu") if device.type == "mps" else device)
        self._loaded: Mixture | None = None
        self._checked: set[Checkpoint] = set()

    @torch.no_grad()
    def load(self, mixture: Mixture) -> None:
        """Fills the network with `mixture`, every parameter and persistent buffer.

        Raises NetworkError where names or shapes do not fit and MixError where an ingredient holds a NaN.
        """
        if mixture == self._loaded:
            return
        self._loaded = None
        for member in mixture.members:
            self._check(member)
        self._sum.prepare(mixture)
        names = [name for name in mixture.kept.tensors if name in self._slots]
        for name, tensor in self._mixed(mixture, names):
            self._slots[name].copy_(tensor.to(mixture.spec(name).dtype))
        if self.settle is not None:
            self.settle()
        self._loaded = mixture

    def _mixed(self, mixture: Mixture, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """Name and mean (float64 where it was averaged) of each tensor, on the device of the sum."""
        averaged = [name for name in names if is_averaged(mixture.spec(name).dtype)]
        passed = [name for name in names if name not in set(averaged)]
        for name, tensor in _read_ahead(mixture.kept, passed):
            yield name, tensor
        members, weights = mixture.members, mixture.weights
        if len(members) == 1:
            for name, tensor in _read_ahead(members[0], averaged):
                yield name, _finite(tensor, name, members)
        elif mixture.is_uniform:
            for name, total in self._sum.with_members(members, averaged):
                yield name, _finite(total, name, members).div_(len(members))
        else:
            for name in averaged:
                total = torch.zeros(mixture.spec(name).shape, dtype=torch.float64, device=self._sum.device)
                for member, weight in zip(members, weights, strict=True):
                    total.add_(_read(member, name).to(self._sum.device, torch.float64), alpha=weight)
                yield name, _finite(total, name, members)

    def _check(self, checkpoint: Checkpoint) -> None:
        if any(checkpoint is checked for checked in self._checked):
            return
        _check_fit(self.network, self._slots, checkpoint)
        self._checked.add(checkpoint)


class _RunningSum:
    """The sum of the members of a soup, in float64, extended as members are accepted."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._members: tuple[Checkpoint, ...] = ()
        self._sums: dict[str, Tensor] = {}

    def prepare(self, mixture: Mixture) -> None:
        """Forgets the sum where it is not a part of what comes."""
        a_part = self._members and mixture.members[: len(self._members)] == self._members
        if mixture.is_uniform and len(mixture.members) > 1 and not a_part:
            self._members, self._sums = (), {}

    def with_members(self, members: tuple[Checkpoint, ...], names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """Name and sum over `members` of each tensor; all but the last are kept for the next call."""
        kept, accepted, last = self._members, members[len(self._members) : -1], members[-1:]
        if len(kept) == len(members):
            last = ()
        self._members = ()  # not whole until every tensor is
        readers = [_read_ahead(member, names) for member in (*accepted, *last)]
        for name in names:
            terms = [next(reader)[1].to(self.device) for reader in readers]
            total = self._sums.get(name)
            if total is None:
                total = torch.zeros(members[0].tensors[name].shape, dtype=torch.float64, device=self.device)
                self._sums[name] = total
            for term in terms[: len(accepted)]:
                total.add_(term.to(torch.float64))
            yield name, total + terms[-1].to(torch.float64) if last else total.clone()
        self._members = members if not last else members[:-1]


def _read(checkpoint: Checkpoint, name: str) -> Tensor:
    spec = checkpoint.tensors[name]
    tensor = torch.empty(spec.shape, dtype=spec.dtype)
    checkpoint.read(name, tensor)
    return tensor


def _read_ahead(checkpoint: Checkpoint, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """The tensors one by one; while one is used, the next is read."""
    if not names:
        return
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(_read, checkpoint, names[0])
        for name, following in zip(names, [*names[1:], None], strict=True):
            tensor = coming.result()
            if following is not None:
                coming = reader.submit(_read, checkpoint, following)
            yield name, tensor


def _finite(tensor: Tensor, name: str, members: Sequence[Checkpoint]) -> Tensor:
    if bool(tensor.isfinite().all()):
        return tensor
    for member in members:
        if not bool(_read(member, name).to(torch.float64).isfinite().all()):
            raise MixError(
                f"{weights_file(member)}: tensor {name!r} holds a NaN or an infinity",
                hint="its training diverged: leave this ingredient out",
            )
    raise MixError(f"tensor {name!r}: the sum of the ingredients overflows float64")


def _materialise(module: nn.Module, device: torch.device) -> None:
    """Gives parameters memory on `device`, those that are tied the same memory, and moves buffers there."""
    made: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                if id(parameter) not in made:
                    made[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device=device), requires_grad=False)
                part._parameters[name] = made[id(parameter)]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = buffer.to(device)


def _slots(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by their names in a state dict, tied ones under each of their names."""
    return dict(module.state_dict(keep_vars=True))


def _check_fit(network: Network, slots: dict[str, Tensor], checkpoint: Checkpoint) -> None:
    """Raises NetworkError at the first name or shape that does not fit."""
    present = {id(slots[name]) for name in checkpoint.tensors if name in slots}
    source, kind = weights_file(checkpoint), type(network.module).__name__
    for name, slot in slots.items():
        if name not in checkpoint.tensors and id(slot) not in present:
            raise NetworkError(f"{source}: has no tensor {name!r}, which the network {kind} needs", hint=_HINT)
        if name in checkpoint.tensors and tuple(slot.shape) != checkpoint.tensors[name].shape:
            raise NetworkError(
                f"{source}: tensor {name!r} has shape {list(checkpoint.tensors[name].shape)}, "
                f"the network {kind} has {list(slot.shape)}",
                hint=_HINT,
            )
    for name in checkpoint.tensors:
        if name not in slots and not any(re.search(pattern, name) for pattern in network.ignored_names):
            raise NetworkError(f"{source}: has tensor {name!r}, which the network {kind} has no place for", hint=_HINT)


_HINT = "model: in the recipe must build the network that these weights were saved from"
