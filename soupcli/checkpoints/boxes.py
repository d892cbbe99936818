"""A tensor that lies in boxes: each a contiguous block with an offset along every axis, as FSDP and tensor parallelism
cut it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from soupcli.errors import CheckpointError

ReadBox = Callable[[int, Tensor, int], None]  # number of the box, out, first element in the box


class Box(NamedTuple):
    """`sizes` elements from `offsets` along each axis."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


def check_boxes(source: Path, name: str, shape: tuple[int, ...], boxes: Sequence[Box]) -> None:
    """Raises CheckpointError where the boxes do not cover each element of the tensor exactly once."""
    inside = all(
        len(box.offsets) == len(box.sizes) == len(shape)
        and all(o >= 0 and s > 0 and o + s <= n for o, s, n in zip(*box, shape, strict=True))
        for box in boxes
    )
    covered = sum(math.prod(box.sizes) for box in boxes)
    if math.prod(shape) and (not inside or covered != math.prod(shape) or _overlap(boxes)):
        raise CheckpointError(
            f"{source}: the {len(boxes)} pieces of tensor {name!r} do not make up its shape {list(shape)}",
            hint="the save was not finished: save the checkpoint again",
        )


def _overlap(boxes: Sequence[Box]) -> bool:
    if len(boxes) < 2:
        return False
    begins_bd = torch.tensor([box.offsets for box in boxes])
    ends_bd = begins_bd + torch.tensor([box.sizes for box in boxes])
    for b in range(1, len(boxes)):
        apart = (begins_bd[:b] >= ends_bd[b]) | (ends_bd[:b] <= begins_bd[b])
        if not bool(apart.any(dim=1).all()):
            return True
    return False


def read_boxes(shape: tuple[int, ...], boxes: Sequence[Box], read_box: ReadBox, out: Tensor, start: int) -> None:
    """Fills `out` with the elements from `start`, in row-major order, of the tensor that the boxes make up."""
    if out.numel() == 0:
        return
    flat = out.view(-1)
    if all(box.sizes[1:] == shape[1:] for box in boxes):
        _read_rows(shape, boxes, read_box, flat, start)
        return
    row = math.prod(shape[1:])
    first, last = start // row, (start + out.numel() - 1) // row
    rows = torch.empty((last - first + 1, *shape[1:]), dtype=out.dtype)
    for number, box in enumerate(boxes):
        begin, end = max(first, box.offsets[0]), min(last + 1, box.offsets[0] + box.sizes[0])
        if begin < end:
            part = torch.empty((end - begin, *box.sizes[1:]), dtype=out.dtype)
            read_box(number, part, (begin - box.offsets[0]) * math.prod(box.sizes[1:]))
            place = [slice(o, o + s) for o, s in zip(box.offsets[1:], box.sizes[1:], strict=True)]
            rows[(slice(begin - first, end - first), *place)] = part
    flat.copy_(rows.view(-1)[start - first * row :][: out.numel()])


def _read_rows(shape: tuple[int, ...], boxes: Sequence[Box], read_box: ReadBox, flat: Tensor, start: int) -> None:
    """Boxes of whole rows lie one after the other: each part goes straight to its place."""
    row = math.prod(shape[1:])
    order = sorted(range(len(boxes)), key=lambda number: boxes[number].offsets[:1])
    begins = [(boxes[number].offsets[0] if shape else 0) * row for number in order]
    for number, (begin, end) in zip(order, pairwise([*begins, math.prod(shape)]), strict=True):
        low, high = max(begin, start), min(end, start + flat.numel())
        if low < high:
            read_box(number, flat[low - start : high - start], low - begin)
