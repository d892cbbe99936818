"""A torch distributed checkpoint: a folder with `.metadata` and `*.distcp`, read tensor by tensor, in one process.

Written by torch.distributed.checkpoint.save, and so by Accelerate (`pytorch_model_fsdp_0/`) and by Lightning and
Fabric (a folder that ends in .ckpt, with meta.pt). `.metadata` says of each tensor which boxes of it lie where; a box
is a small archive of torch.save inside a .distcp file, whose place is looked up when the box is first read.

`.metadata` is a plain pickle, so it is opened only where the user trusts it, and then too with nothing but the classes
that belong there.
"""

from __future__ import annotations

import importlib
import io
import math
import pickle
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import torch
from torch import Tensor

from soupcli.checkpoints.checkpoint import NO_PLACES, Origin, StoredTensor, TensorSpec, read_stored
from soupcli.checkpoints.formats.pickles import SAVE_AGAIN, stand_in, unwrap, without_prefixes
from soupcli.checkpoints.formats.sharded import file_beside
from soupcli.checkpoints.formats.torch_save import read_tensor_header
from soupcli.errors import CheckpointError
from soupcli.files.reading import FileVersion, read_bytes

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


METADATA = ".metadata"
INSIDE = "pytorch_model_fsdp_0"  # where Accelerate, and the Trainer over it, put it
MAX_METADATA = 1_000_000_000
CLASSES = {
    "torch.distributed.checkpoint.metadata": (
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    ),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo", "_StoragePrefix"),
    "torch.distributed._shard.sharded_tensor.metadata": ("TensorProperties", "MEM_FORMAT_ENCODING"),  # before 2.3
    "torch.serialization": ("_get_layout",),
    "torch": ("Size", "device"),
    "collections": ("OrderedDict",),
    "builtins": ("set", "frozenset"),
}


class Piece(NamedTuple):
    """A box of a tensor and the bytes of its archive."""

    box: Box
    file: FileVersion
    offset: int
    length: int


def distributed_folder(path: Path) -> Path | None:
    """The folder at or in `path` that holds a distributed checkpoint, None where there is none."""
    return next((folder for folder in (path, path / INSIDE) if (folder / METADATA).is_file()), None)


def open_distributed(
    path: Path,
    folder: Path,
    side_files: tuple[Path, ...],
    metrics: Mapping[str, float],
    *,
    key: str | None = None,
    trust: bool = False,
    allow: Sequence[str] = (),
) -> DistributedCheckpoint:
    """The checkpoint in `folder`, by its `.metadata`.

    Raises CheckpointError where that is not trusted, where it asks for other classes than its own, and where pieces
    are missing or do not make up their tensors.
    """
    file = FileVersion.of(folder / METADATA)
    if not trust:
        raise CheckpointError(
            f"{file.path}: is a plain pickle, which can run code when it is opened",
            hint="if you trust where this checkpoint comes from: --trust",
        )
    metadata = _unpickle(file, allow)
    chosen, state = unwrap(folder, _nested(metadata), key=key, is_tensor=lambda value: hasattr(value, "chunks"))
    files: dict[str, FileVersion] = {}
    tensors: dict[str, TensorSpec] = {}
    pieces: dict[str, tuple[Piece, ...]] = {}
    renamed = without_prefixes(state)
    for stored, name in renamed.items():
        fqn, entry = state[stored].fqn, state[stored].entry
        tensors[name] = TensorSpec(tuple(entry.size), entry.properties.dtype)
        chunks = [chunk for chunk in entry.chunks if math.prod(chunk.sizes)]  # a process may hold none of a tensor
        pieces[name] = tuple(_piece(file.path, metadata, fqn, chunk, files) for chunk in chunks)
        check_boxes(file.path, name, tensors[name].shape, [piece.box for piece in pieces[name]])
    held = (file, *(files[name] for name in sorted(files)))
    origin = Origin("distributed", chosen, metrics)
    return DistributedCheckpoint(path, tensors, pieces, held, side_files, origin)


@dataclass(frozen=True, eq=False)
class DistributedCheckpoint:
    """See Checkpoint; every tensor is put together from its pieces when it is read."""

    path: Path
    tensors: Mapping[str, TensorSpec]
    pieces: Mapping[str, tuple[Piece, ...]]
    files: tuple[FileVersion, ...]
    side_files: tuple[Path, ...]
    origin: Origin
    constants: Container[str] = ()
    _places: dict[Piece, StoredTensor] = field(default_factory=dict)

    sources = ()
    is_adapter = False
    adapted = ()
    inherited = ()
    parts = ()
    places = NO_PLACES

    @property
    def folder(self) -> Path:
        """See Checkpoint.folder."""
        return self.path

    @property
    def side_folder(self) -> Path | None:
        """See Checkpoint.side_folder."""
        return self.path

    def read(self, name: str, out: Tensor, *, start: int = 0) -> None:
        """See Checkpoint.read."""
        spec, pieces = self.tensors[name], self.pieces[name]

        def read_box(number: int, part: Tensor, begin: int) -> None:
            box_spec = TensorSpec(pieces[number].box.sizes, spec.dtype)
            read_stored(box_spec, self._place(name, pieces[number], box_spec), part, begin)

        read_boxes(spec.shape, [piece.box for piece in pieces], read_box, out, start)

    def _place(self, name: str, piece: Piece, expected: TensorSpec) -> StoredTensor:
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


class _Entry(NamedTuple):
    fqn: str
    entry: Any

    @property
    def chunks(self) -> Any:
        return self.entry.chunks


def _nested(metadata: Any) -> dict[str, Any]:
    """The saved object as it was nested before its names were flattened, with entries of the metadata as leaves."""
    top: dict[str, Any] = {}
    paths = metadata.planner_data if isinstance(metadata.planner_data, Mapping) else {}
    for fqn, entry in metadata.state_dict_metadata.items():
        at = top
        *above, last = paths.get(fqn) or (fqn,)
        for name in above:
            at = at.setdefault(str(name), {})
            if not isinstance(at, dict):
                break
        if isinstance(at, dict):
            at[str(last)] = _Entry(fqn, entry) if hasattr(entry, "chunks") else None
    return top


def _piece(source: Path, metadata: Any, fqn: str, chunk: Any, files: dict[str, FileVersion]) -> Piece:
    index = importlib.import_module("torch.distributed.checkpoint.metadata").MetadataIndex(fqn, chunk.offsets)
    info = metadata.storage_data.get(index)
    if info is None:
        raise CheckpointError(f"{source}: says not where tensor {fqn!r} lies", hint=SAVE_AGAIN)
    if getattr(info, "transform_descriptors", None):
        raise CheckpointError(f"{source}: tensor {fqn!r} is compressed or encrypted, which this version does not read")
    if info.relative_path not in files:
        files[info.relative_path] = file_beside(source, info.relative_path)
    file = files[info.relative_path]
    if not 0 <= info.offset <= info.offset + info.length <= file.size:
        raise CheckpointError(
            f"{file.path}: has {file.size} bytes, tensor {fqn!r} ends at byte {info.offset + info.length}",
            hint="the file was cut short: copy it again",
        )
    return Piece(Box(tuple(chunk.offsets), tuple(chunk.sizes)), file, info.offset, info.length)


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, allow: Sequence[str]) -> None:
        super().__init__(io.BytesIO(data))
        self._allow = allow
        self.refused: str | None = None

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "pathlib":
            return PurePath  # a path of the machine that wrote it: not looked at
        found = getattr(importlib.import_module(module), name, None) if name in CLASSES.get(module, ()) else None
        if found is None and module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            found = getattr(torch, name)
        if found is None and f"{module}.{name}" in self._allow:
            found = stand_in(f"{module}.{name}")
        if found is None:
            self.refused = f"{module}.{name}"
            raise pickle.UnpicklingError(self.refused)
        return found


def _unpickle(file: FileVersion, allow: Sequence[str]) -> Any:
    if file.size > MAX_METADATA:
        raise CheckpointError(f"{file.path}: {file.size} bytes, at most {MAX_METADATA} are read")
    unpickler = _Unpickler(read_bytes(file, 0, file.size), allow)
    try:
        metadata = unpickler.load()
        checked = [dict(metadata.state_dict_metadata), dict(metadata.storage_data), metadata.planner_data]
    except Exception as cause:  # whatever a pickle raises that is broken or hostile
        if unpickler.refused is not None:
            raise CheckpointError(
                f"{file.path}: not opened: it needs {unpickler.refused}, which does not belong there",
                hint=f"let an empty stand-in take its place: --allow-class {unpickler.refused}",
            ) from cause
        raise CheckpointError(f"{file.path}: not the metadata of a checkpoint: {cause}", hint=SAVE_AGAIN) from cause
    del checked
    return metadata
