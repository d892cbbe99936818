"""`{arrays: digits-val.safetensors}`: the tensors `inputs` [N, ...] and `labels` [N] in one safetensors file."""

from __future__ import annotations

import torch
from torch import Tensor

from soupcli.checkpoints.files import FileVersion, sha256
from soupcli.checkpoints.opening import open_checkpoint
from soupcli.errors import CheckpointError, ValidationError
from soupcli.recipe import ArraysSet
from soupcli.validation.examples import ArrayExamples


def fingerprint(spec: ArraysSet) -> str:
    """Of the file's content."""
    return f"arrays:{sha256(FileVersion.of(spec.arrays))}"


def load(spec: ArraysSet) -> ArrayExamples:
    """The examples of the file. Raises ValidationError where tensors are missing or do not go together."""
    try:
        stored = open_checkpoint(spec.arrays)
    except CheckpointError as cause:
        raise ValidationError(str(cause), hint="arrays: takes a safetensors file") from cause
    tensors: dict[str, Tensor] = {}
    for name in ("inputs", "labels"):
        if name not in stored.tensors:
            raise ValidationError(f"{spec.arrays}: has no tensor {name!r}, it has {', '.join(stored.tensors)}")
        shape, dtype = stored.tensors[name]
        tensors[name] = torch.empty(shape, dtype=dtype)
        stored.read(name, tensors[name])
    inputs, labels = tensors["inputs"], tensors["labels"]
    if labels.dim() != 1 or inputs.dim() < 1 or len(inputs) != len(labels) or labels.is_floating_point():
        raise ValidationError(
            f"{spec.arrays}: labels are {labels.dtype} {list(labels.shape)}, inputs {list(inputs.shape)}",
            hint="labels are integers [N], inputs [N, ...]",
        )
    return ArrayExamples(inputs, labels.to(torch.int64), fingerprint(spec))
