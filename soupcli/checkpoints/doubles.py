"""Finds checkpoints with the same weights as another one: `best.pth` is often `last.pth`.

kept, doubles = without_doubles(checkpoints, lambda _: None)
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.checkpoint import read_bits, read_dense
from soupcli.checkpoints.compare.integers import is_incidental
from soupcli.files.reading import same_content

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from soupcli.checkpoints.checkpoint import Checkpoint

SAMPLE = 64  # elements at both ends of each tensor
CHUNK = 1 << 22  # elements that are compared at once


class Double(NamedTuple):
    """A checkpoint, and the one that is kept with the same weights."""

    checkpoint: Checkpoint
    of: Checkpoint


def without_doubles(
    checkpoints: Sequence[Checkpoint], within: Callable[[Checkpoint], Path | None]
) -> tuple[list[Checkpoint], list[Double]]:
    """Return one checkpoint for each set of weights in each folder that `within` names, and the others as its doubles.

    The first folder with these weights is kept, else the first file: a folder holds configuration and tokenizer too.
    A soup is kept if all of them are soups: greedy's may be of one ingredient. Of what `within` names, a folder with
    all the weights of an earlier one and no others is its double.

    A sample of every tensor is read, and whole tensors only if samples agree. Counters and other integers that any
    ingredient may give are ignored, because trainers save the same weights at different steps.
    """
    if len(checkpoints) < 2:
        return list(checkpoints), []
    groups = _alike(checkpoints)
    folders = {one: within(one) for one in checkpoints}
    held: dict[Path | None, set[int]] = {}
    for number, group in enumerate(groups):
        for one in group:
            held.setdefault(folders[one], set()).add(number)
    first_with: dict[frozenset[int], Path | None] = {}
    for one in checkpoints:
        first_with.setdefault(frozenset(held[folders[one]]), folders[one])
    chosen: dict[Checkpoint, Checkpoint] = {}
    for group in groups:
        inside: dict[Path | None, list[Checkpoint]] = {}
        for one in group:
            inside.setdefault(first_with[frozenset(held[folders[one]])], []).append(one)
        chosen |= {one: kept for some in inside.values() for kept in [_one_to_keep(some)] for one in some}
    doubles = [Double(one, chosen[one]) for one in checkpoints if chosen[one] is not one]
    return [one for one in checkpoints if chosen[one] is one], doubles


def _alike(checkpoints: Sequence[Checkpoint]) -> list[list[Checkpoint]]:
    """Return the checkpoints with the same weights together."""
    alike: dict[bytes, list[list[Checkpoint]]] = {}
    groups: list[list[Checkpoint]] = []
    for checkpoint in checkpoints:
        beside = alike.setdefault(_sample(checkpoint), [])
        group = next((group for group in beside if _equal(checkpoint, group[0])), None)
        if group is None:
            group = []
            beside.append(group)
            groups.append(group)
        group.append(checkpoint)
    return groups


def _one_to_keep(group: Sequence[Checkpoint]) -> Checkpoint:
    """Return the first that is no soup, and of these a folder, whose other files go with the weights."""
    plain = [one for one in group if not one.origin.members] or group
    return next((one for one in plain if one.side_folder is not None), plain[0])


def _weights(checkpoint: Checkpoint) -> list[str]:
    tensors = checkpoint.tensors.items()
    return sorted(name for name, spec in tensors if spec.dtype.is_averaged or not is_incidental(name, spec))


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
