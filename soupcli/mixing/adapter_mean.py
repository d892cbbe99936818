"""The mean of LoRA adapters, as one adapter: the mean of their products, not the product of their means.

    soup = AdapterSoup.of(mixture, rank=None)
    soup.tensors, soup.config              # what adapter_model.safetensors and adapter_config.json hold

Sum_k w_k s_k B_k A_k is s [m_1 B_1, m_2 B_2, ...] [A_1; A_2; ...] with m_k = w_k s_k / s: an adapter of the summed
rank. If all w_k s_k are equal, s is that number, the factors are the ingredients' own, and nothing is rounded;
otherwise s is 1 and m_k B_k is rounded once. With a `rank` it is the best approximation of that rank (Eckart and Young
1936): the singular value decomposition of the product, from QR decompositions of its factors, so that the product
itself is never formed.

Shapes: o outputs, i inputs, r the summed rank of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli.checkpoints.adapters.adapter import AdapterCheckpoint, Factors
from soupcli.checkpoints.adapters.base_as_adapter import BaseAsAdapter
from soupcli.checkpoints.adapters.config import MERGE, soup_config
from soupcli.checkpoints.checkpoint import NO_PLACES, Checkpoint, Origin, TensorSpec
from soupcli.checkpoints.tensor_filter import FilteredCheckpoint
from soupcli.errors import MixError
from soupcli.late import torch
from soupcli.mixing.arithmetic.rounding import round_tensor
from soupcli.mixing.mixture import Mixture, mix
from soupcli.progress import Progress, silent

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.checkpoints.dtype import Dtype
    from soupcli.files.reading import FileVersion


class AdapterTerm(NamedTuple):
    """One adapter's part in a layer."""

    adapter: AdapterCheckpoint
    factors: Factors
    multiplier: float  # of its B

    def read(self, stored: str) -> Tensor:
        """A tensor of the adapter. Raises MixError if it holds a NaN or an infinity."""
        spec = self.adapter.stored.tensors[stored]
        tensor = torch.empty(spec.shape, dtype=spec.dtype.torch)
        self.adapter.stored.read(stored, tensor)
        if not bool(tensor.isfinite().all()):
            raise MixError(
                f"{self.adapter.stored.files[0].path}: tensor {stored!r} holds a NaN or an infinity",
                hint="its training diverged: leave this ingredient out",
            )
        return tensor


class Approximation(NamedTuple):
    """Factors of lower rank, in float64, and the singular values of the exact change."""

    a: Tensor
    b: Tensor
    values: Tensor


class AdapterLayer(NamedTuple):
    """The soup's change of one layer: `scale` times the sum of the terms' m B A."""

    factors: Factors  # names of the tensors, as in every adapter
    terms: tuple[AdapterTerm, ...]
    scale: Fraction
    rank: int
    approximation: Approximation | None = None

    def a(self) -> Tensor:
        """A: [r, ...]."""
        if self.approximation is not None:
            return self.approximation.a
        return torch.cat([term.read(term.factors.a).double() for term in self.terms])

    def b(self) -> Tensor:
        """B: [o, r, ...]."""
        if self.approximation is not None:
            return self.approximation.b
        return torch.cat([term.read(term.factors.b).double() * term.multiplier for term in self.terms], dim=1)

    def bias(self) -> Tensor:
        """Of B: [o]."""
        parts = [term.read(term.factors.bias or "").double() * term.multiplier for term in self.terms]
        return torch.stack(parts).sum(dim=0)


@dataclass(frozen=True, eq=False)
class AdapterSoup:
    """See Checkpoint: the mean as an adapter, whose tensors are computed when they are read."""

    path: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorSpec]
    layers: Mapping[str, tuple[AdapterLayer, str]]  # stored name -> its layer and which part of it
    whole: Mixture  # of the tensors that the adapters hold whole
    files: tuple[FileVersion, ...]
    side_files: tuple[Path, ...]
    side_folder: Path | None
    relative_error: float  # of the change, in the Frobenius norm over all layers; 0 if it is exact

    sources = ()
    members = ()
    is_adapter = True
    adapted = ()
    inherited = ()
    parts = ()
    constants = ()
    taken = ()
    places = NO_PLACES

    @property
    def own(self) -> Checkpoint:
        """See Checkpoint.own."""
        return self

    @classmethod
    def of(cls, mixture: Mixture, *, rank: int | None = None, progress: Progress = silent) -> AdapterSoup:
        """Return the adapter of a mixture of adapters, of rank `rank` at most.

        Raises MixError if the weights of a tensor do not sum to 1, and for a NaN.
        """
        kept = kept_adapter(mixture)
        layers = []
        for done, name in enumerate(sorted(kept.factors), 1):
            layers.append(layer_of(mixture, name, rank))
            progress("adding up adapters", done, len(kept.factors))
        whole = whole_tensors(mixture, kept)
        tensors = {name: whole.spec(name) for name in kept.plain.values()}
        parts: dict[str, tuple[AdapterLayer, str]] = {}
        for layer in layers:
            for part, name, spec in _parts(layer, mixture.dtype):
                tensors[name], parts[name] = spec, (layer, part)
        modules = {layer.factors.module: (layer.rank, layer.scale * layer.rank) for layer in layers}
        files = tuple(file for member in mixture.members for file in _whose(member).files)
        error = _relative_error(layers)
        config = soup_config(kept.config.values, modules)
        return cls(kept.path, config, tensors, parts, whole, files, kept.side_files, kept.side_folder, error)

    @property
    def folder(self) -> Path:
        """See Checkpoint.folder."""
        return self.path

    @property
    def origin(self) -> Origin:
        """See Checkpoint.origin."""
        return Origin("PEFT adapter")

    def read(self, name: str, out: Tensor, *, start: int = 0) -> None:
        """See Checkpoint.read."""
        if name not in self.layers:
            out.view(-1).copy_(mix(self.whole, name, start=start, count=out.numel()))
            return
        layer, part = self.layers[name]
        tensor: Tensor = getattr(layer, part)()
        round_tensor(tensor.reshape(-1)[start : start + out.numel()].clone(), out.dtype, out=out.view(-1))


def is_of_adapters(mixture: Mixture) -> bool:
    """Whether the members are adapters, or their base as one."""
    return mixture.kept.is_adapter


def kept_adapter(mixture: Mixture) -> AdapterCheckpoint:
    """Return the adapter that gives what is not averaged."""
    kept = _whose(mixture.kept)
    assert isinstance(kept, AdapterCheckpoint)
    return kept


def _whose(checkpoint: Checkpoint, name: str | None = None) -> AdapterCheckpoint | BaseAsAdapter:
    """Return the adapter itself, or the one that its tensor `name` comes from."""
    owner = checkpoint.sources[0] if name in checkpoint.taken else checkpoint.own
    assert isinstance(owner, AdapterCheckpoint | BaseAsAdapter)
    return owner


def layer_of(mixture: Mixture, name: str, rank: int | None = None) -> AdapterLayer:
    """Return the change of weight `name`, with terms in an order that does not depend on the mixture's."""
    weighed = mixture.ordered(name)
    weights: dict[AdapterCheckpoint, Fraction] = {}
    for (member, _), weight in zip(weighed, _exact_weights(name, [weight for _, weight in weighed]), strict=True):
        owner = _whose(member, name)
        if isinstance(owner, AdapterCheckpoint):
            weights[owner] = weights.get(owner, Fraction(0)) + weight
    weights = weights or {kept_adapter(mixture): Fraction(0)}  # of the base alone: factors whose product is 0
    members = list(weights)
    shares = [weights[member] * member.factors[name].scale for member in members]
    rank_sum = sum(member.factors[name].rank for member in members)
    # lora_alpha = scale * rank: other readers of adapters than PEFT take whole numbers alone.
    as_they_are = len(set(shares)) == 1 and (shares[0] * rank_sum).denominator == 1
    terms = tuple(
        AdapterTerm(member, member.factors[name], 1.0 if as_they_are else float(share))
        for member, share in zip(members, shares, strict=True)
    )
    layer = AdapterLayer(members[0].factors[name], terms, shares[0] if as_they_are else Fraction(1), rank_sum)
    return layer if rank is None or rank_sum <= rank else _approximate(layer, rank)


def _exact_weights(name: str, weights: Sequence[float]) -> list[Fraction]:
    if len(set(weights)) == 1:
        return [Fraction(1, len(weights))] * len(weights)
    total = math.fsum(weights)
    if abs(total - 1.0) > 1e-6:
        raise MixError(
            f"tensor {name!r}: the weights sum to {total:.6g}: an adapter cannot scale its base",
            hint=MERGE,
        )
    return [Fraction(weight) for weight in weights]


def _approximate(layer: AdapterLayer, rank: int) -> AdapterLayer:
    """The nearest layer of at most `rank`, with the singular values shared between its factors, at a scale of 1."""
    scaled = tuple(term._replace(multiplier=term.multiplier * float(layer.scale)) for term in layer.terms)
    layer = layer._replace(terms=scaled, scale=Fraction(1))
    a, b = layer.a(), layer.b()
    q_or, triangle_rr = torch.linalg.qr(b.flatten(1))
    q_ir, other_rr = torch.linalg.qr(a.flatten(1).T)
    left, values, right = torch.linalg.svd(triangle_rr @ other_rr.T)
    kept = min(rank, len(values))
    root = values[:kept].sqrt()
    new_a = (root[:, None] * (right[:kept] @ q_ir.T)).reshape(kept, *a.shape[1:])
    new_b = ((q_or @ left[:, :kept]) * root).reshape(b.shape[0], kept, *b.shape[2:])
    return layer._replace(rank=kept, approximation=Approximation(new_a, new_b, values))


def _relative_error(layers: Sequence[AdapterLayer]) -> float:
    """The root of the squared norms of all errors over those of all changes that were approximated."""
    values = [(layer.approximation.values, layer.rank) for layer in layers if layer.approximation is not None]
    lost = math.fsum(float(values_r[rank:].square().sum()) for values_r, rank in values)
    total = math.fsum(float(values_r.square().sum()) for values_r, _ in values)
    return math.sqrt(lost / total) if total else 0.0


def _parts(layer: AdapterLayer, dtype: Dtype | None) -> list[tuple[str, str, TensorSpec]]:
    """Part, stored name and spec of each tensor of the layer."""
    factors, found = layer.factors, []
    for part, name in (("a", factors.a), ("b", factors.b), ("bias", factors.bias)):
        if name is None:
            continue
        specs = [term.adapter.stored.tensors[name] for term in layer.terms]
        shape = list(specs[0].shape)
        if part != "bias":
            shape[0 if part == "a" else 1] = layer.rank
        found.append((part, name, TensorSpec(tuple(shape), dtype or _widest(specs))))
    return found


def _widest(specs: Sequence[TensorSpec]) -> Dtype:
    dtype = specs[0].dtype
    for spec in specs[1:]:
        dtype = dtype.common(spec.dtype)
    return dtype


def whole_tensors(mixture: Mixture, kept: AdapterCheckpoint) -> Mixture:
    """Return the mixture of the adapters' own tensors, for tensors without factors."""
    coefficients = {stored: mixture.weights_of(name) for name, stored in kept.plain.items()}
    return Mixture(
        tuple(_stored(member) for member in mixture.members),
        mixture.weights,
        mixture.dtype,
        kept.stored,
        coefficients if mixture.coefficients is not None else None,
    )


def _stored(member: Checkpoint) -> Checkpoint:
    """The adapter's own tensors, those that are not mixed from the adapter that they come from."""
    adapter = _whose(member)
    if not member.taken:
        return adapter.stored
    source = _whose(member.sources[0])
    taken = frozenset(stored for name, stored in source.plain.items() if name in member.taken)
    specs = {**adapter.stored.tensors, **{stored: source.stored.tensors[stored] for stored in taken}}
    return FilteredCheckpoint(adapter.stored, source.stored, taken, specs)


def soup_specs(mixture: Mixture) -> dict[str, TensorSpec]:
    """Shape and dtype of the tensors in the soup's files, before a lower rank is taken."""
    if is_of_adapters(mixture):
        return dict(AdapterSoup.of(mixture).tensors)
    return {name: mixture.spec(name) for name in mixture.kept.tensors}
