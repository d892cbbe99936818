"""The one live network. Weights are written into it in place, from a running sum of the soup's members.

Memory on the device: the network, one sum in float64, one tensor of a checkpoint, whatever the number of ingredients.
A candidate is `(sum + candidate) / n` written into the network; the sum is untouched, so nothing is undone when the
candidate is rejected. Float64 holds the sum of narrower numbers; float64 tensors, which are rare, are mixed anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import EllipsisType
from typing import TYPE_CHECKING

from soupcli.checkpoints.dtype import Dtype
from soupcli.checkpoints.read_ahead import read_ahead
from soupcli.late import no_grad, torch
from soupcli.mixing.arithmetic.rounding import round_tensor
from soupcli.mixing.mixture import Mixture, mix
from soupcli.networks.slots import Slots
from soupcli.networks.without_weights import materialise

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.networks.network import Network


Rows = slice | EllipsisType  # of a tensor along its first axis
ALL: Rows = ...
BAND = 1 << 16  # numbers, 512 KiB of float64


class LiveNetwork:
    """A network on its device and the mixture that it holds now."""

    def __init__(
        self,
        network: Network,
        device: torch.device,
        *,
        settle: Callable[[Mixture], None] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`settle` is called after weights were loaded, e.g. to re-estimate batch-norm statistics.

        `say` is called for each change to names of tensors that makes them fit.
        """
        self.network = network
        self.device = device
        self.settle = settle
        materialise(network.module, device)
        self._slots = Slots(network, say)
        self._sum = RunningSum(torch.device("cpu") if device.type == "mps" else device)
        self._loaded: Mixture | None = None

    @no_grad
    def load(self, mixture: Mixture) -> None:
        """Fill the network with `mixture`, every parameter and persistent buffer.

        Raises NetworkError if names or shapes do not fit and MixError if an ingredient holds a NaN.
        """
        if mixture == self._loaded:
            return
        self._loaded = None
        for member in mixture.members:
            self._slots.of(member)
        places = self._slots.of(mixture.kept)
        for name, rows, values in self._mixed(mixture, list(places)):
            places[name][rows].copy_(values)
        if self.settle is not None:
            self.settle(mixture)
        self._loaded = mixture

    def forget(self) -> None:
        """Load the next mixture whole, because the user's code may have changed the module."""
        self._loaded = None
        self.network.module.eval()

    def release(self) -> None:
        """Free the memory of the sum, before other code writes weights into the network."""
        self.forget()
        self._sum = RunningSum(self._sum.device)

    def places(self, checkpoint: Checkpoint) -> Mapping[str, Tensor]:
        """Return the network's tensors by their names in `checkpoint`."""
        return self._slots.of(checkpoint)

    def _mixed(self, mixture: Mixture, names: Sequence[str]) -> Iterator[tuple[str, Rows, Tensor]]:
        """Yield name, rows and values of the soup's tensors, in its dtype, until all rows of each are done."""
        dtypes = {name: mixture.spec(name).dtype for name in names}
        averaged = [name for name in names if dtypes[name].is_averaged]
        passing = [(mixture.kept, name) for name in names if not dtypes[name].is_averaged]
        yield from ((name, ALL, tensor) for name, tensor in read_ahead(passing))
        if len(mixture.members) == 1 and mixture.is_uniform:
            for name, tensor in read_ahead([(mixture.members[0], name) for name in averaged]):
                yield name, *_rounded(tensor, ALL, dtypes[name].torch, mixture, name)
            return
        members = mixture.read_members
        summed = [name for name in averaged if mixture.is_uniform and not _is_wide(dtypes[name], members, name)]
        for name, rows, mean in self._sum.means(members, summed) if summed else ():
            yield name, *_rounded(mean, rows, dtypes[name].torch, mixture, name)
        for name in sorted({*averaged} - {*summed}):
            yield name, ALL, _mixed(mixture, name)


class RunningSum:
    """The sum of the members of a soup, in float64, extended as members are accepted."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._members: tuple[Checkpoint, ...] = ()
        self._sums: dict[str, Tensor] = {}

    def means(self, members: tuple[Checkpoint, ...], names: Sequence[str]) -> Iterator[tuple[str, Rows, Tensor]]:
        """Yield name, rows and their unrounded mean over `members`, one band of rows after the other.

        The sum without the last member is kept for the next call. Memory for the members' tensors does not grow with
        their number.
        """
        if not self._members or members[: len(self._members)] != self._members or self._sums.keys() != set(names):
            self._members, self._sums = (), {}
        added, trial = members[len(self._members) : -1], members[max(len(self._members), len(members) - 1) :]
        kept = members[:-1] if trial else members
        self._members = ()  # not whole until every tensor is
        terms = read_ahead([(member, name) for name in names for member in (*added, *trial)])
        for name in names:
            for _ in added:
                self._add(name, next(terms)[1])
            total = self._sums[name]
            term = self._on_device(next(terms)[1]) if trial else None
            for rows in _bands(total):
                mean = total[rows].clone() if term is None else total[rows] + term[rows]
                yield name, rows, mean.div_(len(members))
        self._members = kept

    def _add(self, name: str, term: Tensor) -> None:
        term = self._on_device(term)
        if name in self._sums:
            self._sums[name].add_(term)
        else:
            self._sums[name] = term.to(torch.complex128 if term.is_complex() else torch.float64)

    def _on_device(self, term: Tensor) -> Tensor:
        term = term.to(self.device)
        return term.to(torch.float64) if term.dtype.itemsize == 1 else term  # float8 adds to nothing


def _is_wide(dtype: Dtype, members: Sequence[Checkpoint], name: str) -> bool:
    """Whether float64 cannot hold the sum of such numbers."""
    dtypes = {dtype, *(member.tensors[name].dtype for member in members)}
    return bool(dtypes & {Dtype.FLOAT64, Dtype.COMPLEX128})


def _bands(tensor: Tensor) -> Iterator[Rows]:
    """Yield bands of rows that fit a core's cache while they are divided, rounded and written; all at once on a GPU."""
    height = max(1, BAND * len(tensor) // max(1, tensor.numel())) if tensor.dim() else 0
    if tensor.device.type != "cpu" or not tensor.dim() or height >= len(tensor):
        yield ALL
        return
    yield from (slice(begin, begin + height) for begin in range(0, len(tensor), height))


def _rounded(mean: Tensor, rows: Rows, dtype: torch.dtype, mixture: Mixture, name: str) -> tuple[Rows, Tensor]:
    """Return the mean in the soup's dtype. If it is not finite, `mix` raises and names the ingredient or dtype."""
    if mean.dtype == torch.float64 and dtype != torch.float64:
        mean = round_tensor(mean, dtype)
    out = mean.to(dtype)
    return (rows, out) if _is_finite(out) else (ALL, _mixed(mixture, name))


def _is_finite(tensor: Tensor) -> bool:
    """Whether all numbers are finite. A finite sum proves it in one pass; a sum may also overflow."""
    wide = tensor.float() if tensor.dtype.itemsize == 1 else tensor  # float8 knows neither
    return bool(wide.sum().isfinite()) or bool(wide.isfinite().all())


def _mixed(mixture: Mixture, name: str) -> Tensor:
    """Return the whole tensor, exactly as in the soup's file."""
    spec = mixture.spec(name)
    return mix(mixture, name, start=0, count=spec.numel).view(spec.shape)
