"""The mean of LoRA adapters merged into their base: a full network, W + sum_k w_k s_k B_k A_k, rounded once.

    whole = merged(mixture)                                 # a Mixture of one: the network, computed when it is read

Its tensors have the adapted network's names. Tensors that no adapter changes are the base's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from soupcli.checkpoints.adapters.adapter import AdapterCheckpoint, is_transposed
from soupcli.checkpoints.adapters.base_as_adapter import FilesOfBase
from soupcli.checkpoints.adapters.tied_weights import refuse_split_tie
from soupcli.checkpoints.checkpoint import NO_PLACES, Checkpoint, Component, Origin, TensorSpec, read_part
from soupcli.errors import MixError
from soupcli.late import torch
from soupcli.mixing.adapter_mean import AdapterLayer, is_of_adapters, kept_adapter, layer_of, whole_tensors
from soupcli.mixing.arithmetic.rounding import round_tensor
from soupcli.mixing.mixture import Mixture, mix

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class MergedAdapters(FilesOfBase):
    """See Checkpoint: the base with a mixture of adapters merged into it."""

    base: Checkpoint
    kept: AdapterCheckpoint  # the member that gives what is not averaged
    tensors: Mapping[str, TensorSpec]
    layers: Mapping[str, AdapterLayer]  # changed weight -> the sum of the members' changes
    biases: Mapping[str, AdapterLayer]  # changed bias -> the layer that has it
    whole: Mixture  # of the tensors that the adapters hold whole

    sources = ()
    members = ()
    is_adapter = False
    adapted = ()
    inherited = ()
    constants = ()
    taken = ()
    places = NO_PLACES

    @property
    def own(self) -> Checkpoint:
        """See Checkpoint.own."""
        return self

    @property
    def origin(self) -> Origin:
        """See Checkpoint.origin."""
        return Origin("safetensors")

    @property
    def parts(self) -> Sequence[Component]:
        """See Checkpoint.parts."""
        return self.base.parts

    def read(self, name: str, out: Tensor, *, start: int = 0) -> None:
        """See Checkpoint.read."""
        count, flat = out.numel(), out.view(-1)
        stored = self.kept.plain.get(name)
        if name not in self.layers and name not in self.biases and stored is not None:
            flat.copy_(mix(self.whole, stored, start=start, count=count))
            return
        before = self._before(name, start, count)
        if name not in self.layers and name not in self.biases:
            flat.copy_(before) if before.dtype == out.dtype else round_tensor(before.double(), out.dtype, out=flat)
            return
        change = self._change(name, start, count) if name in self.layers else self._bias_change(name, start, count)
        round_tensor(before.double() + change, out.dtype, out=flat)

    def _before(self, name: str, start: int, count: int) -> Tensor:
        """Return what the change is added to: the adapters' mean of the tensor if they hold it, else the base's."""
        stored = self.kept.plain.get(name)
        if stored is not None:
            return mix(self.whole, stored, start=start, count=count)
        own = self.kept.base_names.get(name)
        return torch.zeros(count) if own is None else read_part(self.base, own, start, count)

    def _change(self, name: str, start: int, count: int) -> Tensor:
        """Return elements of the sum of w s B A, float64 [count]."""
        layer, shape = self.layers[name], self.tensors[name].shape
        a_ri, b_or = layer.a().flatten(1), layer.b().flatten(1)
        if is_transposed(layer.factors, shape, self.kept.stored.tensors, self.kept.config):
            a_ri, b_or = b_or.T, a_ri.T
        row = math.prod(shape[1:])
        first, end = start // row, -(-(start + count) // row)
        rows = b_or[first:end] @ a_ri
        return rows.reshape(-1)[start - first * row :][:count] * float(layer.scale)

    def _bias_change(self, name: str, start: int, count: int) -> Tensor:
        layer = self.biases[name]
        return layer.bias()[start : start + count] * float(layer.scale)


def as_written(mixture: Mixture, *, merge_adapters: bool) -> Mixture:
    """Return the mixture to write: the full network if its members are adapters to be merged, else itself."""
    return merged(mixture) if merge_adapters and is_of_adapters(mixture) else mixture


def own_tensors(checkpoint: Checkpoint) -> Mapping[str, TensorSpec]:
    """The tensors that the configuration beside a checkpoint tells of: of merged adapters, the base's."""
    return checkpoint.base.tensors if isinstance(checkpoint, MergedAdapters) else checkpoint.tensors


def merged(mixture: Mixture) -> Mixture:
    """Return the full network of a mixture of adapters, as a mixture of one.

    Raises MixError if the base is missing, and if it holds several networks under other names than the adapters'.
    """
    kept = kept_adapter(mixture)
    base = kept.base
    if base is None:
        raise MixError(
            f"--merge-adapters: {kept.path}: its base {kept.config.base or '(not named)'} is not a folder here",
            hint=kept.config.way_to_base,
        )
    if base.parts and any(name != own for name, own in kept.base_names.items()):
        raise MixError(f"--merge-adapters: {base.path} holds several networks", hint="--base names the adapted one")
    refuse_split_tie(kept)
    tensors = {name: mixture.spec(name) for name in mixture.kept.tensors}
    layers = {name: layer_of(mixture, name) for name in sorted(kept.factors)}
    modules = {layer.factors.module: layer for layer in layers.values()}
    biases = {name: modules[factors.module] for name, factors in kept.biases.items()}
    return Mixture.uniform([MergedAdapters(base, kept, tensors, layers, biases, whole_tensors(mixture, kept))])
