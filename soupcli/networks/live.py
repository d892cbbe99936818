"""The one live network: weights go into it in place, from a running sum of the soup's members.

Memory on the device: the network, one sum in float64, one tensor of a checkpoint, whatever the number of ingredients.
A candidate is `(sum + candidate) / n` written into the network; the sum is untouched, so nothing is undone when the
candidate is rejected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.checkpoints.mixing import Mixture, is_averaged
from soupcli.network import Network
from soupcli.networks.fitting import Slots
from soupcli.networks.memory import materialise
from soupcli.networks.reading import read_ahead


class LiveNetwork:
    """A network on its device and the mixture that it holds now."""

    def __init__(
        self, network: Network, device: torch.device, *, settle: Callable[[Mixture], None] | None = None
    ) -> None:
        """`settle` is called after weights were loaded, e.g. to re-estimate batch-norm statistics."""
        self.network = network
        self.device = device
        self.settle = settle
        materialise(network.module, device)
        self._slots = Slots(network)
        self._sum = RunningSum(torch.device("cpu") if device.type == "mps" else device)
        self._loaded: Mixture | None = None

    @torch.no_grad()
    def load(self, mixture: Mixture) -> None:
        """Fills the network with `mixture`, every parameter and persistent buffer.

        Raises NetworkError where names or shapes do not fit and MixError where an ingredient holds a NaN.
        """
        if mixture == self._loaded:
            return
        self._loaded = None
        for member in mixture.members:
            self._slots.of(member)
        places = self._slots.of(mixture.kept)
        for name, tensor in self._mixed(mixture, list(places)):
            places[name].copy_(tensor)
        if self.settle is not None:
            self.settle(mixture)
        self._loaded = mixture

    def forget(self) -> None:
        """Whatever is loaded next is loaded whole: code of the user's had the module in its hands."""
        self._loaded = None
        self.network.module.eval()

    def places(self, checkpoint: Checkpoint) -> Mapping[str, Tensor]:
        """The network's own tensors by the names that they have in `checkpoint`."""
        return self._slots.of(checkpoint)

    def _mixed(self, mixture: Mixture, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """Name and value of each tensor of the soup, in the soup's dtype."""
        averaged = [name for name in names if is_averaged(mixture.spec(name).dtype)]
        yield from read_ahead([(mixture.kept, name) for name in names if not is_averaged(mixture.spec(name).dtype)])
        if len(mixture.members) == 1:
            means: Iterator[tuple[str, Tensor]] = read_ahead([(mixture.members[0], name) for name in averaged])
        elif mixture.is_uniform:
            means = self._sum.means(mixture, averaged)
        else:
            means = ((name, _mixed_exactly(mixture, name)) for name in averaged)
        for name, mean in means:
            yield name, _rounded(mean, mixture, name)


class RunningSum:
    """The sum of the members of a soup, in float64, extended as members are accepted.

    What float64 itself cannot hold of a sum of float64 tensors is carried beside it, as in `checkpoints.mixing`.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._members: tuple[Checkpoint, ...] = ()
        self._sums: dict[str, list[Tensor]] = {}  # the sum, and its error where it is carried

    def means(self, mixture: Mixture, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """Name and unrounded mean over all members of each tensor.

        The sum of all members but the last is kept for the next call. Memory for tensors of the members does not grow
        with their number.
        """
        members = mixture.members
        if not self._members or members[: len(self._members)] != self._members:
            self._members, self._sums = (), {}
        added, trial = members[len(self._members) : -1], members[max(len(self._members), len(members) - 1) :]
        kept = members[:-1] if trial else members
        self._members = ()  # not whole until every tensor is
        terms = read_ahead([(member, name) for name in names for member in (*added, *trial)])
        for name in names:
            if name not in self._sums:
                self._sums[name] = self._zeros(mixture, name)
            total = self._sums[name]
            for _ in added:
                _add(total, self._wide(next(terms)[1]))
            candidate = [part.clone() for part in total]
            for _ in trial:
                _add(candidate, self._wide(next(terms)[1]))
            mean = candidate[0].add_(candidate[1]) if len(candidate) > 1 else candidate[0]
            yield name, mean.div_(len(members))
        self._members = kept

    def _zeros(self, mixture: Mixture, name: str) -> list[Tensor]:
        shape, dtype = mixture.spec(name)
        wide = torch.complex128 if dtype.is_complex else torch.float64
        return [torch.zeros(shape, dtype=wide, device=self.device) for _ in range(2 if dtype == wide else 1)]

    def _wide(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device).to(torch.complex128 if tensor.is_complex() else torch.float64)


def _add(total: list[Tensor], term: Tensor) -> None:
    """Adds in place; with an error beside the sum, what was rounded off goes there (two-sum, Knuth, TAOCP 2, 4.2.2)."""
    if len(total) == 1:
        total[0].add_(term)
        return
    rounded = total[0] + term
    back = rounded - total[0]
    total[1].add_((total[0] - (rounded - back)) + (term - back))
    total[0].copy_(rounded)


def _rounded(mean: Tensor, mixture: Mixture, name: str) -> Tensor:
    """The mean in the soup's dtype; where that is not finite, `mix` says which ingredient or dtype is to blame."""
    shape, dtype = mixture.spec(name)
    out = mean.to(dtype)
    # float8 knows no isfinite
    if bool((out.float() if dtype.itemsize == 1 else out).isfinite().all()):
        return out.view(shape)
    return _mixed_exactly(mixture, name).view(shape)


def _mixed_exactly(mixture: Mixture, name: str) -> Tensor:
    from soupcli.checkpoints.mixing import mix

    return mix(mixture, name, start=0, count=mixture.spec(name).numel)
