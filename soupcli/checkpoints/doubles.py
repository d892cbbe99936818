"""Finds checkpoints with the same weights as another one: `best.pth` is often `last.pth`.

kept, doubles = without_doubles(checkpoints)
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.checkpoint import read_bits, read_dense
from soupcli.files.reading import same_content

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint

SAMPLE = 64  # elements at both ends of each tensor
CHUNK = 1 << 22  # elements that are compared at once


class Double(NamedTuple):
    """A checkpoint, and the earlier one with the same weights."""

    checkpoint: Checkpoint
    of: Checkpoint


def without_doubles(checkpoints: Sequence[Checkpoint]) -> tuple[list[Checkpoint], list[Double]]:
    """Return the checkpoints without doubles of earlier ones, and the doubles.

    A sample of every tensor is read, and whole tensors only if samples agree. Counters and other integers are ignored,
    because trainers save the same weights at different steps.
    """
    kept: list[Checkpoint] = []
    doubles: list[Double] = []
    alike: dict[bytes, list[Checkpoint]] = {}
    for checkpoint in checkpoints:
        beside = alike.setdefault(_sample(checkpoint), []) if len(checkpoints) > 1 else []
        known = next((other for other in beside if _equal(checkpoint, other)), None)
        if known is None:
            beside.append(checkpoint)
            kept.append(checkpoint)
        else:
            doubles.append(Double(checkpoint, known))
    return kept, doubles


def _weights(checkpoint: Checkpoint) -> list[str]:
    return sorted(name for name, spec in checkpoint.tensors.items() if spec.dtype.is_averaged)


def _sample(checkpoint: Checkpoint) -> bytes:
    """Return a digest of names, shapes, dtypes and the first and last elements of each tensor."""
    digest = hashlib.sha256()
    for name in _weights(checkpoint):
        spec = checkpoint.tensors[name]
        digest.update(json.dumps([name, spec.shape, str(spec.dtype)]).encode())
        part = memoryview(bytearray(min(SAMPLE, spec.numel) * spec.dtype.itemsize))
        for start in sorted({0, max(0, spec.numel - SAMPLE)}):
            if read_dense(checkpoint, name, start, spec.dtype, part):
                digest.update(part)
    return digest.digest()


def _equal(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether all weights are equal bit for bit, or for computed weights whether the files are."""
    if one.is_adapter or other.is_adapter or not one.places or not other.places:
        return _equal_files(one, other)
    return all(_equal_tensor(one, other, name) for name in _weights(one))


def _equal_tensor(one: Checkpoint, other: Checkpoint, name: str) -> bool:
    numel = one.tensors[name].numel
    for start in range(0, numel, CHUNK):
        count = min(CHUNK, numel - start)
        if read_bits(one, name, start, count) != read_bits(other, name, start, count):  # a NaN equals itself
            return False
    return True


def _equal_files(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether the files are equal. An adapter's include its configuration, which holds its scale."""
    return len(one.files) == len(other.files) and all(map(same_content, one.files, other.files))
