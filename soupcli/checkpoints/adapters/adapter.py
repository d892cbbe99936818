"""A PEFT LoRA adapter as the whole network that it makes of its base: W + s B A, computed when it is read.

So adapters are evaluated and mixed like any checkpoints. If the base is missing, only the products s B A are known:
enough to mix, not to evaluate. mixing/adapter_mean.py writes a mean as an adapter again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.adapters.config import CONFIG, MERGE, AdapterConfig, read_adapter_config
from soupcli.checkpoints.checkpoint import (
    NO_PLACES,
    Checkpoint,
    Origin,
    StoredCheckpoint,
    TensorSpec,
)
from soupcli.errors import CheckpointError
from soupcli.late import torch
from soupcli.mixing.arithmetic.rounding import round_tensor
from soupcli.wording import nearest

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.checkpoints.dtype import Dtype
    from soupcli.files.reading import FileVersion

PREFIX = "base_model.model."
WRAPPED = ".base_layer."  # a layer of the base inside a layer of PEFT
PAIRS = ((".lora_A.weight", ".lora_B.weight"), (".lora_embedding_A", ".lora_embedding_B"))
BIAS = ".lora_B.bias"


class Factors(NamedTuple):
    """Names of the stored A [r, in, ...] and B [out, r, ...] of one layer, and its scale: the change is s B A."""

    module: str
    a: str
    b: str
    bias: str | None  # of B: [out]
    rank: int
    scale: Fraction
    embedding: bool


def sort_parts(tensors: Mapping[str, TensorSpec], config: AdapterConfig) -> tuple[list[Factors], dict[str, str]]:
    """Factors by module, and name in the network -> stored name of whole tensors.

    Raises CheckpointError for a factor without its other half and for factors that are not LoRA's.
    """
    factors: list[Factors] = []
    used: set[str] = set()
    for a in sorted(tensors):
        for end_a, end_b in PAIRS:
            if a.endswith(end_a):
                pair = _pair(tensors, config, a, a.removesuffix(end_a), end_b)
                factors.append(pair)
                used |= {pair.a, pair.b, *([pair.bias] if pair.bias else [])}
    if not factors:
        raise CheckpointError(
            f"{config.file.path}: there are no LoRA factors beside it",
            hint="the adapter file holds other weights: save it with model.save_pretrained(folder)",
        )
    whole = [name for name in sorted(tensors) if name not in used]
    for name in whole:
        if ".lora_" in name:
            raise CheckpointError(f"{config.file.path}: tensor {name!r} is no factor of a plain LoRA", hint=MERGE)
    return factors, {plain_name(name): name for name in whole}


def plain_name(stored: str) -> str:
    """Return the name of a stored tensor in the network without PEFT."""
    return stored.removeprefix(PREFIX).replace(WRAPPED, ".")


def _pair(tensors: Mapping[str, TensorSpec], config: AdapterConfig, a: str, stem: str, end_b: str) -> Factors:
    b, module = stem + end_b, plain_name(stem)
    if b not in tensors:
        raise CheckpointError(
            f"{config.file.path}: tensor {a!r} has no {b!r} to go with it",
            hint="the file is not whole: save the adapter again, or leave it out",
        )
    shape_a, shape_b = tensors[a].shape, tensors[b].shape
    if len(shape_a) < 2 or len(shape_b) < 2 or 0 in shape_a or shape_a[0] != shape_b[1]:
        raise CheckpointError(
            f"{config.file.path}: the factors of {module} have shapes {list(shape_a)} and {list(shape_b)}, "
            "not [r, in] and [out, r]",
            hint=f"grouped convolutions cannot be mixed as adapters: {MERGE}",
        )
    bias = stem + BIAS if end_b == PAIRS[0][1] and stem + BIAS in tensors else None
    embedding = end_b == PAIRS[1][1]
    return Factors(module, a, b, bias, shape_a[0], config.scale(module, shape_a[0]), embedding)


__all__ = ["CONFIG", "WEIGHTS", "AdapterCheckpoint", "open_adapter"]

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
PARAMETERS = (".weight", ".in_proj_weight")  # what a layer's factors change; the other one is MultiheadAttention's


@dataclass(frozen=True, eq=False)
class AdapterCheckpoint:
    """See Checkpoint. `stored` holds the adapter's own tensors."""

    path: Path
    config: AdapterConfig
    stored: StoredCheckpoint
    base: Checkpoint | None
    base_names: Mapping[str, str]  # name -> the base's own name
    factors: Mapping[str, Factors]  # weight -> what changes it
    biases: Mapping[str, Factors]  # bias -> the factors whose B has one
    plain: Mapping[str, str]  # name -> stored name, of tensors that the adapter holds whole
    tensors: Mapping[str, TensorSpec]
    constants: Container[str] = ()

    taken = ()
    members = ()
    is_adapter = True
    parts = ()
    places = NO_PLACES

    @property
    def own(self) -> Checkpoint:
        """See Checkpoint.own."""
        return self

    @property
    def files(self) -> tuple[FileVersion, ...]:
        """The adapter's own files; the base has its own."""
        return (*self.stored.files, self.config.file)

    @property
    def side_files(self) -> tuple[Path, ...]:
        """See Checkpoint.side_files."""
        return self.stored.side_files

    @property
    def side_folder(self) -> Path | None:
        """See Checkpoint.side_folder."""
        return self.stored.side_folder

    @property
    def origin(self) -> Origin:
        """See Checkpoint.origin."""
        return self.stored.origin._replace(format="PEFT adapter")

    @property
    def whole_base(self) -> Checkpoint:
        """The base. Raises CheckpointError if it is missing."""
        if self.base is None:
            raise CheckpointError(
                f"{self.path}: its base {self.config.base or '(not named)'} is not a folder here",
                hint=self.config.way_to_base,
            )
        return self.base

    @property
    def folder(self) -> Path:
        """The base's. Raises CheckpointError if the base is missing."""
        return self.whole_base.folder

    @property
    def sources(self) -> Sequence[Checkpoint]:
        """See Checkpoint.sources."""
        return () if self.base is None else (self.base, *self.base.sources)

    @property
    def adapted(self) -> Collection[str]:
        """See Checkpoint.adapted."""
        return self.factors.keys()

    @property
    def inherited(self) -> Collection[str]:
        """See Checkpoint.inherited: tensors that only the base has."""
        return self.base_names.keys() - self.factors.keys() - self.biases.keys() - self.plain.keys()

    def read(self, name: str, out: Tensor, *, start: int = 0) -> None:
        """See Checkpoint.read."""
        count, flat = out.numel(), out.view(-1)
        whole = self._whole(name, start, count)
        if name in self.factors:
            change = self._product(self.factors[name], self.tensors[name].shape, start, count)
        elif name in self.biases:
            bias, scale = self.biases[name].bias, self.biases[name].scale
            assert bias is not None
            change = self._own(bias).double()[start : start + count] * float(scale)
        else:
            assert whole is not None
            flat.copy_(whole)
            return
        round_tensor(change if whole is None else change + whole.double(), out.dtype, out=flat)

    def _whole(self, name: str, start: int, count: int) -> Tensor | None:
        """The tensor before the factors change it, the adapter's own or else the base's: [count]."""
        source: Checkpoint | None = self.stored
        stored = self.plain.get(name)
        if stored is None:
            source, stored = self.base, self.base_names.get(name)
        if source is None or stored is None:
            return None
        part = torch.empty(count, dtype=source.tensors[stored].dtype.torch)
        source.read(stored, part, start=start)
        return part

    def _product(self, factors: Factors, shape: tuple[int, ...], start: int, count: int) -> Tensor:
        """Elements of s B A, transposed if the layer stores its weight so: float64 [count]."""
        a_ri = self._own(factors.a).double().flatten(1)
        b_or = self._own(factors.b).double().flatten(1)
        if is_transposed(factors, shape, self.stored.tensors, self.config):
            a_ri, b_or = b_or.T, a_ri.T
        row = math.prod(shape[1:])
        first, end = start // row, -(-(start + count) // row)
        rows = b_or[first:end] @ a_ri
        return rows.reshape(-1)[start - first * row :][:count] * float(factors.scale)  # a copy

    def _own(self, stored: str) -> Tensor:
        spec = self.stored.tensors[stored]
        tensor = torch.empty(spec.shape, dtype=spec.dtype.torch)
        self.stored.read(stored, tensor)
        return tensor


def open_adapter(
    stored: StoredCheckpoint, folder: Path, open_base: Callable[[Path], Checkpoint], base: Path | None
) -> AdapterCheckpoint:
    """Open the adapter with tensors `stored` on `base`, by default the folder that its configuration names.

    Raises CheckpointError if its settings do not allow an exact mean, or if adapter and base do not fit.
    """
    config = read_adapter_config(folder)
    parts, plain = sort_parts(stored.tensors, config)
    if base is None and config.base is not None and Path(config.base).is_dir():
        base = Path(config.base)
    opened = open_base(base) if base is not None else None
    names = _base_names(stored.path, opened, [part.module for part in parts]) if opened is not None else {}
    factors = {_changed(part.module, names) or f"{part.module}.weight": part for part in parts}
    biases = {f"{part.module}.bias": part for part in parts if part.bias is not None}
    specs = {name: opened.tensors[own] for name, own in names.items()} if opened is not None else {}
    specs |= {name: stored.tensors[own] for name, own in plain.items()}
    for name, part in factors.items():
        specs[name] = _changed_spec(name, part, stored, config, specs.get(name))
    for name, part in biases.items():
        bias = stored.tensors[part.bias or ""]
        specs[name] = TensorSpec(bias.shape, _wider(bias.dtype, specs.get(name)))
    return AdapterCheckpoint(stored.path, config, stored, opened, names, factors, biases, plain, specs)


def with_bases(checkpoints: Sequence[Checkpoint], open_base: Callable[[Path], Checkpoint]) -> list[Checkpoint]:
    """Put adapters that lack their base on the model of the Hub that they name; `open_base` opens each once."""
    opened: dict[Path, Checkpoint] = {}
    found: list[Checkpoint] = []
    for one in checkpoints:
        if isinstance(one, AdapterCheckpoint) and one.base is None and one.config.base_on_hub is not None:
            named = one.config.base_on_hub
            opened[named] = opened.get(named) or open_base(named)
            found.append(_put_on(one, named, opened[named]))
        else:
            found.append(one)
    return found


def _put_on(adapter: AdapterCheckpoint, named: Path, base: Checkpoint) -> AdapterCheckpoint:
    put = open_adapter(adapter.stored, adapter.config.file.path.parent, lambda _: base, named)
    return replace(put, path=adapter.path)


def is_transposed(
    factors: Factors, shape: tuple[int, ...], own: Mapping[str, TensorSpec], config: AdapterConfig
) -> bool:
    """Whether a weight of `shape` changes by (B A)^T, as embeddings and GPT-2's Conv1D do."""
    out_in = (own[factors.b].shape[0], *own[factors.a].shape[1:])
    if factors.embedding or shape != out_in:
        return True
    return bool(config.values.get("fan_in_fan_out")) and len(shape) == 2 and shape[0] == shape[1]


def _changed_spec(
    name: str, part: Factors, stored: StoredCheckpoint, config: AdapterConfig, before: TensorSpec | None
) -> TensorSpec:
    own = stored.tensors
    out_in = (own[part.b].shape[0], *own[part.a].shape[1:])
    turned = part.embedding or (before is None and bool(config.values.get("fan_in_fan_out")) and len(out_in) == 2)
    if before is not None and not before.dtype.is_averaged:
        dtype = before.dtype.value
        raise CheckpointError(
            f"{stored.path}: changes {name!r}, which its base holds as {dtype}: a quantised weight",
            hint="--base PATH names the same network with whole weights (transformers: model.dequantize())",
        )
    shape = out_in[::-1] if turned else out_in
    if before is not None and not part.embedding and len(out_in) == 2 and before.shape == out_in[::-1]:
        shape = out_in[::-1]
    if before is not None and before.shape != shape:
        raise CheckpointError(
            f"{stored.path}: changes {name!r} as if it had shape {list(shape)}, its base has {list(before.shape)}",
            hint="--base PATH names the network that the adapters were trained on",
        )
    return TensorSpec(shape, _wider(own[part.a].dtype.common(own[part.b].dtype), before))


def _wider(dtype: Dtype, before: TensorSpec | None) -> Dtype:
    return dtype if before is None else dtype.common(before.dtype)


def _base_names(path: Path, base: Checkpoint, modules: Sequence[str]) -> dict[str, str]:
    """Map names in the adapted network to names in the base, which may be saved without its outer module.

    Raises CheckpointError if the base has no such module.
    """
    for added, removed in _prefixes(base, modules[0]):
        names = {added + name.removeprefix(removed): name for name in base.tensors}
        if all(_changed(module, names) for module in modules):
            return names
    names = dict.fromkeys(base.tensors, "")
    lost = next((module for module in modules if _changed(module, names) is None), modules[0])
    near = nearest(f"{lost}.weight", names)
    raise CheckpointError(
        f"{base.path}: has no {lost}.weight, which {path} adapts"
        + (f"; its nearest is {near!r}" if near is not None else ""),
        hint="--base PATH names the network that the adapters were trained on",
    )


def _prefixes(base: Checkpoint, module: str) -> Iterator[tuple[str, str]]:
    """What may have to be added to the base's names and taken from them: nothing first."""
    yield "", ""
    steps = module.split(".")
    for count in range(1, len(steps)):
        yield ".".join(steps[:count]) + ".", ""
    for outer in sorted({name.partition(".")[0] for name in base.tensors}):
        yield "", f"{outer}."


def _changed(module: str, names: Mapping[str, str]) -> str | None:
    """Return the name of the parameter that the factors of `module` change, or None."""
    return next((module + end for end in PARAMETERS if module + end in names), None)
