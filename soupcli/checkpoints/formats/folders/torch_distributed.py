"""A torch distributed checkpoint: a folder with `.metadata` and `*.distcp`, read tensor by tensor, in one process.

Written by torch.distributed.checkpoint.save, and so by Accelerate (`pytorch_model_fsdp_0/`) and by Lightning and
Fabric (a folder that ends in .ckpt, with meta.pt). `.metadata` says of each tensor which boxes of it lie where; a box
is a small archive of torch.save inside a .distcp file, whose place is looked up when the box is first read.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from soupcli.checkpoints.checkpoint import NO_PLACES, Origin, StoredTensor, TensorSpec, read_stored
from soupcli.checkpoints.formats.folders.distributed_metadata import (
    SAVE_AGAIN,
    Box,
    DistributedTensor,
    Metadata,
    read_metadata,
)
from soupcli.checkpoints.formats.folders.shards import file_beside
from soupcli.checkpoints.formats.names import plain_names
from soupcli.checkpoints.formats.network_part import network_part
from soupcli.checkpoints.formats.own_settings import is_own_number, settings_in
from soupcli.checkpoints.formats.part_words import dotted
from soupcli.checkpoints.formats.setting_words import is_of_network
from soupcli.checkpoints.formats.soup_mark import members_at, tail_of
from soupcli.checkpoints.formats.torch_archives import read_object
from soupcli.checkpoints.formats.torch_save import DTYPES, read_tensor_header
from soupcli.errors import CheckpointError
from soupcli.files.reading import FileVersion
from soupcli.late import torch

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_NUMBER = 10_000  # bytes of an archive that may hold a plain number
MOST_BOXES = 20_000  # of one tensor: each may have to be compared with every other
ReadBox: TypeAlias = "Callable[[int, Tensor, int], None]"  # number of the box, out, first element in the box


def check_boxes(source: Path, name: str, shape: tuple[int, ...], boxes: Sequence[Box]) -> None:
    """Raises CheckpointError if the boxes do not cover each element of the tensor exactly once."""
    inside = all(
        len(box.offsets) == len(box.sizes) == len(shape)
        and all(o >= 0 and s > 0 and o + s <= n for o, s, n in zip(*box, shape, strict=True))
        for box in boxes
    )
    covered = sum(math.prod(box.sizes) for box in boxes)
    if len(boxes) > MOST_BOXES:
        raise CheckpointError(f"{source}: tensor {name!r} lies in {len(boxes)} pieces, at most {MOST_BOXES} are read")
    if math.prod(shape) and (not inside or covered != math.prod(shape) or _overlap(boxes)):
        raise CheckpointError(
            f"{source}: the {len(boxes)} pieces of tensor {name!r} do not make up its shape {list(shape)}",
            hint="the save was not finished: save the checkpoint again",
        )


def _overlap(boxes: Sequence[Box]) -> bool:
    if len(boxes) < 2 or any(_apart_along(axis, boxes) for axis in range(len(boxes[0].offsets))):
        return False
    begins_bd = torch.tensor([box.offsets for box in boxes])
    ends_bd = begins_bd + torch.tensor([box.sizes for box in boxes])
    for b in range(1, len(boxes)):
        apart = (begins_bd[:b] >= ends_bd[b]) | (ends_bd[:b] <= begins_bd[b])
        if not bool(apart.any(dim=1).all()):
            return True
    return False


def _apart_along(axis: int, boxes: Sequence[Box]) -> bool:
    """Whether each box ends before the next one begins along one axis: the tensor was cut along it."""
    spans = sorted((box.offsets[axis], box.offsets[axis] + box.sizes[axis]) for box in boxes)
    return all(end <= begin for (_, end), (begin, _) in pairwise(spans))


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


METADATA = ".metadata"
FORMAT = "distributed"
# Libraries that read their own distributed checkpoints alone -> files that they put beside the pieces.
WRITERS = {"Megatron": ("common.pt", "metadata.json"), "Lightning": ("meta.pt",)}
# Where Accelerate, and the Trainer over it, put it; OLMo-core.
INSIDE = ("pytorch_model_fsdp_0", "model_and_optim")


class StoredBox(NamedTuple):
    """A box of a tensor and the bytes of its archive."""

    box: Box
    file: FileVersion
    offset: int
    length: int


def distributed_folder(path: Path) -> Path | None:
    """Returns the folder at or in `path` that holds a distributed checkpoint, or None."""
    return next((folder for folder in (path, *(path / name for name in INSIDE)) if (folder / METADATA).is_file()), None)


def open_distributed(
    path: Path, folder: Path, side_files: tuple[Path, ...], metrics: Mapping[str, float], *, key: str | None = None
) -> DistributedCheckpoint:
    """Returns the checkpoint in `folder`, by its `.metadata`.

    Raises CheckpointError if that is broken, and if pieces are missing or do not make up their tensors.
    """
    file = FileVersion.of(folder / METADATA)
    metadata = read_metadata(file)
    part = network_part(folder, metadata.content, key=key, is_tensor=lambda value: isinstance(value, DistributedTensor))
    files: dict[str, FileVersion] = {}
    tensors: dict[str, TensorSpec] = {}
    pieces: dict[str, tuple[StoredBox, ...]] = {}
    for stored, name in plain_names(part.tensors).items():
        entry: DistributedTensor = part.tensors[stored]
        if entry.dtype not in DTYPES:
            raise CheckpointError(
                f"{file.path}: tensor {name!r} has dtype {entry.dtype}, which this version does not read"
            )
        tensors[name] = TensorSpec(entry.shape, DTYPES[entry.dtype])
        boxes = [box for box in entry.boxes if math.prod(box.sizes)]  # a process may hold none of a tensor
        pieces[name] = tuple(_piece(file.path, metadata, entry.name, box, files) for box in boxes)
        check_boxes(file.path, name, tensors[name].shape, boxes)
    held = (file, *(files[name] for name in sorted(files)))
    members = members_at(file, tail_of(file))
    numbers = _plain_numbers(file.path, metadata, part.key)
    said = settings_in(numbers, network="", own=numbers)
    settings = {dotted(part.key, name): text for name, text in said.items()}
    origin = Origin(_writer(folder), part.key, metrics, part.notes, part.averaged, members=members)
    origin = origin._replace(states=tuple(numbers), settings=settings)
    return DistributedCheckpoint(path, tensors, pieces, held, side_files, origin)


def _plain_numbers(source: Path, metadata: Metadata, key: str | None) -> dict[str, Any]:
    """Return the numbers among the network's tensors, which lie at `key`, that are no tensors and not a training's."""
    above, found = tuple(key.split(".")) if key else (), {}
    for stored, (*steps, name) in metadata.paths.items():
        place = metadata.places.get((stored, ()))
        if tuple(steps) != above or place is None or place.transformed or place.length > LARGEST_NUMBER:
            continue
        if not is_of_network(name):
            continue
        with contextlib.suppress(CheckpointError):  # broken: whoever needs it says how
            content = read_object(file_beside(source, place.file), place.offset, place.length).content
            if is_own_number(name, content):
                found[name] = content
    return found


def _writer(folder: Path) -> str:
    """Who wrote the folder, by the files beside its pieces."""
    return next((name for name, files in WRITERS.items() if all((folder / file).is_file() for file in files)), FORMAT)


@dataclass(frozen=True, eq=False)
class DistributedCheckpoint:
    """See Checkpoint; every tensor is put together from its pieces when it is read."""

    path: Path
    tensors: Mapping[str, TensorSpec]
    pieces: Mapping[str, tuple[StoredBox, ...]]
    files: tuple[FileVersion, ...]
    side_files: tuple[Path, ...]
    origin: Origin
    constants: Container[str] = ()
    home: Path | None = None  # the folder of its files, if it is not `path`
    _places: dict[StoredBox, StoredTensor] = field(default_factory=dict)

    sources = ()
    members = ()
    taken = ()
    is_adapter = False
    adapted = ()
    inherited = ()
    parts = ()
    places = NO_PLACES

    @property
    def own(self) -> DistributedCheckpoint:
        """See Checkpoint.own."""
        return self

    @property
    def folder(self) -> Path:
        """See Checkpoint.folder."""
        return self.path if self.home is None else self.home

    @property
    def side_folder(self) -> Path | None:
        """See Checkpoint.side_folder."""
        return self.folder

    def read(self, name: str, out: Tensor, *, start: int = 0) -> None:
        """See Checkpoint.read."""
        spec, pieces = self.tensors[name], self.pieces[name]

        def read_box(number: int, part: Tensor, begin: int) -> None:
            box_spec = TensorSpec(pieces[number].box.sizes, spec.dtype)
            read_stored(box_spec, self.place_of(name, pieces[number], box_spec), part, begin)

        read_boxes(spec.shape, [piece.box for piece in pieces], read_box, out, start)

    def place_of(self, name: str, piece: StoredBox, expected: TensorSpec) -> StoredTensor:
        """Return the place of a piece's elements in its file. Raises CheckpointError if it is not `expected`."""
        if piece not in self._places:
            found, place = read_tensor_header(piece.file, piece.offset, piece.length)
            if found != expected:
                raise CheckpointError(
                    f"{piece.file.path}: a piece of tensor {name!r} has shape {list(found.shape)} and dtype "
                    f"{found.dtype}, {METADATA} says {list(expected.shape)} and {expected.dtype}",
                    hint=SAVE_AGAIN,
                )
            self._places[piece] = place
        return self._places[piece]


def _piece(source: Path, metadata: Metadata, name: str, box: Box, files: dict[str, FileVersion]) -> StoredBox:
    place = metadata.places.get((name, box.offsets))
    if place is None:
        raise CheckpointError(f"{source}: does not say where tensor {name!r} lies", hint=SAVE_AGAIN)
    if place.transformed:
        raise CheckpointError(f"{source}: tensor {name!r} is compressed or encrypted, which this version does not read")
    if place.file not in files:
        files[place.file] = file_beside(source, place.file)
    file = files[place.file]
    if not 0 <= place.offset <= place.offset + place.length <= file.size:
        raise CheckpointError(
            f"{file.path}: has {file.size} bytes, tensor {name!r} ends at byte {place.offset + place.length}",
            hint="the file was cut short: copy it again",
        )
    return StoredBox(box, file, place.offset, place.length)
