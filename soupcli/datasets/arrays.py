"""`{arrays: digits-val.safetensors}`: the tensors `inputs` [N, ...] and `labels` in one safetensors file.

Labels are integers [N], the classes; floats [N], numbers that the network predicts; or [N, K] of 0 and 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.checkpoints.open import open_checkpoint
from soupcli.datasets import label_rows
from soupcli.datasets.class_names import listed
from soupcli.datasets.examples import ArrayExamples
from soupcli.datasets.kind import SetKind
from soupcli.datasets.prompts import check_is_file, content_hash
from soupcli.errors import CheckpointError, ValidationError
from soupcli.late import torch
from soupcli.wording import suggestion

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.files.manifest import Manifest
    from soupcli.recipe.sets import ArraysSet

READ = ("inputs", "labels")
SHOWN = 20  # names of tensors


def fingerprint(spec: ArraysSet, manifest: Manifest | None = None) -> str:
    """Return the fingerprint of the content of the tensors' files. Raises ValidationError for an unreadable one."""
    files = _opened(spec).files  # and checked before all of it is hashed
    index = content_hash(spec.arrays, manifest)
    parts = [content_hash(file.path, manifest) for file in files if len(files) > 1 or file.path != spec.arrays]
    return ":".join(("arrays", index, *parts))


def _opened(spec: ArraysSet) -> Checkpoint:
    """Open the file. Raises ValidationError if its header has no inputs and labels, one for each of the other."""
    check_is_file(spec.arrays)
    try:
        stored = open_checkpoint(spec.arrays)
    except CheckpointError as cause:
        raise ValidationError(str(cause), hint="arrays: takes a safetensors file") from cause
    for name in READ:
        if name not in stored.tensors:
            near = suggestion(name, stored.tensors)
            some = ", ".join(list(stored.tensors)[:SHOWN])
            raise ValidationError(f"{spec.arrays}: has no tensor {name!r}{near}", hint=f"it has {some}")
    inputs, labels = stored.tensors["inputs"], stored.tensors["labels"]
    if (
        len(labels.shape) not in (1, 2)
        or labels.shape[1:] == (1,)
        or inputs.shape[:1] != labels.shape[:1]
        or labels.dtype.is_complex
        or not labels.numel
    ):
        raise ValidationError(
            f"{spec.arrays}: labels are {labels.dtype.value} {list(labels.shape)}, inputs {list(inputs.shape)}",
            hint="labels are integers or numbers [N], or 0 and 1 [N, K], inputs [N, ...], N at least 1",
        )
    return stored


def load(spec: ArraysSet, manifest: Manifest | None = None) -> ArrayExamples:
    """Return the examples of the file. Raises ValidationError if tensors are missing or do not match."""
    mark = fingerprint(spec, manifest)
    tensors: dict[str, Tensor] = {}
    try:
        stored = _opened(spec)
        for name in READ:
            shape, dtype = stored.tensors[name]
            tensors[name] = torch.empty(shape, dtype=dtype.torch)
            stored.read(name, tensors[name])
    except CheckpointError as cause:
        raise ValidationError(str(cause), hint="arrays: takes a safetensors file") from cause
    inputs, labels = tensors["inputs"], tensors["labels"]
    if labels.dim() == 2:
        return ArrayExamples(inputs, label_rows.of_tensor(spec.arrays, labels), mark)
    if labels.is_floating_point() and not bool(labels.isfinite().all()):
        row = int((~labels.isfinite()).nonzero()[0, 0])
        raise ValidationError(f"{spec.arrays}: label {row} is {float(labels[row])}, not a number", hint="leave it out")
    return ArrayExamples(inputs, labels.to(torch.float64 if labels.is_floating_point() else torch.int64), mark)


def unread(spec: ArraysSet) -> str | None:
    """Return a warning of other tensors with a row for each example, such as a mask: the network does not get them."""
    stored = _opened(spec)
    rows = stored.tensors["labels"].shape[:1]
    names = [name for name, of in stored.tensors.items() if of.shape[:1] == rows and name not in READ]
    if not names:
        return None
    return (
        f"{spec.arrays}: {listed(names)}: not read, the network gets `inputs` alone; {{python: 'my_eval.py:evaluate'}} "
        "is a set whose function passes more to the network"
    )


KIND: SetKind[ArraysSet] = SetKind(
    lambda spec, manifest, _: fingerprint(spec, manifest),
    lambda spec, given: load(spec, given.cache.manifest),
    check=lambda spec, _name, _trust: check_is_file(spec.arrays),
    remark=unread,
)
