"""The tensors of a LoRA adapter, sorted: pairs of factors, and tensors that it holds whole (heads, biases)."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

from soupcli.checkpoints.adapter_config import AdapterConfig
from soupcli.checkpoints.checkpoint import TensorSpec
from soupcli.errors import CheckpointError

PREFIX = "base_model.model."
WRAPPED = ".base_layer."  # a layer of the base inside a layer of PEFT
PAIRS = ((".lora_A.weight", ".lora_B.weight"), (".lora_embedding_A", ".lora_embedding_B"))
BIAS = ".lora_B.bias"
MERGE = "merge each adapter into its base (merge_and_unload) and mix the whole networks"


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
        raise CheckpointError(f"{config.file.path}: there are no LoRA factors beside it")
    whole = [name for name in sorted(tensors) if name not in used]
    for name in whole:
        if ".lora_" in name:
            raise CheckpointError(f"{config.file.path}: tensor {name!r} is no factor of a plain LoRA", hint=MERGE)
    return factors, {plain_name(name): name for name in whole}


def plain_name(stored: str) -> str:
    """A stored name as the network without PEFT has it."""
    return stored.removeprefix(PREFIX).replace(WRAPPED, ".")


def _pair(tensors: Mapping[str, TensorSpec], config: AdapterConfig, a: str, stem: str, end_b: str) -> Factors:
    b, module = stem + end_b, plain_name(stem)
    if b not in tensors:
        raise CheckpointError(f"{config.file.path}: tensor {a!r} has no {b!r} to go with it")
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
