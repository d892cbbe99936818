"""A soup as torch.distributed.checkpoint wrote its ingredients: a copy of the best one's folder, with other numbers.

    written = write_distributed(mixture, kept, folder, CopyOptions())

Pieces stay as the processes of the training cut them. Training state is left out, unless `keep_state`: then the other
pieces move up, and `.metadata` is written again with their new places.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from soupcli.checkpoints.checkpoint import TensorSpec
from soupcli.checkpoints.dtype import Dtype
from soupcli.checkpoints.formats.beside_network import leads_to, parts_beside
from soupcli.checkpoints.formats.folders.distributed_metadata import DistributedTensor, Metadata, read_metadata
from soupcli.checkpoints.formats.folders.torch_distributed import METADATA
from soupcli.checkpoints.formats.pickles.stand_ins import StandIn
from soupcli.errors import CheckpointError
from soupcli.files.atomic import flush, write_whole
from soupcli.files.reading import FileVersion, read_bytes, sha256
from soupcli.files.small_file import read_small
from soupcli.mixing.soup_mark import add_mark
from soupcli.mixing.stand_in_pickle import pickled
from soupcli.mixing.torch_file import whole_tensor, write_elements
from soupcli.mixing.zip_records import correct_checksums, zip_records

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from soupcli.checkpoints.formats.folders.torch_distributed import DistributedCheckpoint, StoredBox
    from soupcli.mixing.mixture import Mixture
    from soupcli.mixing.torch_copy import CopyOptions

# Files beside the pieces that Lightning, Megatron and Megatron-Bridge look for; at most so large.
BESIDE = ("meta.pt", "common.pt", "metadata.json", "modelopt_run_config.yaml", "run_config.yaml", "train_state.pt")
LARGEST = 1 << 26
CHUNK = 1 << 22
TRACKER = "latest_checkpointed_iteration.txt"  # Megatron's, above its folders
TRACKERS = (TRACKER, "latest_train_state.pt")  # the other one is Megatron-Bridge's
COUNTERS = ("common.pt", "train_state.pt")  # steps of the training


class DistributedFiles(NamedTuple):
    """The written files: SHA-256 of each, by its name in the folder."""

    digests: dict[str, str]
    others: dict[str, str]
    nbytes: int
    notes: tuple[str, ...]


class _Span(NamedTuple):
    """The place of a piece in the best ingredient's file."""

    file: str
    offset: int
    length: int


def write_distributed(
    mixture: Mixture, kept: DistributedCheckpoint, folder: Path, options: CopyOptions
) -> DistributedFiles:
    """Write the soup into `folder` as `kept`, its best ingredient, is stored.

    Raises MixError if a tensor cannot be mixed, and OSError if the disk is full.
    """
    source = kept.files[0].path.parent
    below = _below(kept, source)
    target = folder / below
    target.mkdir(parents=True, exist_ok=True)
    metadata = read_metadata(kept.files[0])
    dropped, state = _dropped(metadata, kept.origin.key) if not options.keep_state else ([], [])
    moves = _copied(metadata, kept, target, dropped) if dropped else _copied_whole(source, kept, target)
    _fill(mixture, kept, target, moves, options)
    add_mark(target / METADATA, options.last_mark())
    flush(target / METADATA)
    files = sorted(entry for entry in target.iterdir() if entry.suffix == ".distcp")
    digests = {below + file.name: sha256(FileVersion.of(file)) for file in files}
    digests[below + METADATA] = sha256(FileVersion.of(target / METADATA))
    others = {below + name: _copied_small(source / name, target / name) for name in _names_beside(source)}
    trackers = [name for name in TRACKERS if below and (kept.path / name).is_file()]
    others |= {name: _copied_small(kept.path / name, folder / name) for name in trackers}
    notes = [f"{name}: training state, left out (--keep-state keeps it)" for name in state]
    notes += [f"{below}{name}: as in the ingredient" for name in _names_beside(source) if name in COUNTERS]
    return DistributedFiles(digests, others, sum((target / file.name).stat().st_size for file in files), tuple(notes))


def _below(kept: DistributedCheckpoint, source: Path) -> str:
    """The folder of the pieces in the soup's folder, with a slash after it; "" for the soup's own folder."""
    above = kept.path if (kept.path / TRACKER).is_file() else kept.folder
    try:
        name = str(source.relative_to(above))
    except ValueError:
        return ""
    return "" if name == "." else f"{name}/"


def _dropped(metadata: Metadata, key: str | None) -> tuple[list[str], list[str]]:
    """Flattened names of the training state beside the network at `key`, and the parts of the saved object with it."""
    beside = parts_beside(metadata.content, key, lambda value: isinstance(value, DistributedTensor))
    parts = sorted(part.name for part in beside if part.is_training)
    places = {name: ".".join(path) for name, path in metadata.paths.items()}
    return [name for name, place in places.items() if any(leads_to(part, place) for part in parts)], parts


def _copied_whole(source: Path, kept: DistributedCheckpoint, target: Path) -> Mapping[_Span, int] | None:
    """Copy every file of the checkpoint: all pieces stay where they lie."""
    for entry in sorted(source.iterdir()):
        if entry.suffix == ".distcp" and entry.is_file():
            shutil.copyfile(entry, target / entry.name)
    shutil.copyfile(kept.files[0].path, target / METADATA)
    return None


def _copied(
    metadata: Metadata, kept: DistributedCheckpoint, target: Path, dropped: list[str]
) -> Mapping[_Span, int] | None:
    """Copy all pieces but the dropped ones, and write `.metadata` with their new places. Returns these."""
    left = set(dropped)
    spans = {
        _Span(place.file, place.offset, place.length)
        for (name, _), place in metadata.places.items()
        if name not in left
    }
    moves: dict[_Span, int] = {}
    for name in sorted({span.file for span in spans}):
        file = FileVersion.of(kept.files[0].path.parent / name)
        with (target / name).open("xb") as out:
            for span in sorted(span for span in spans if span.file == name):
                moves[span] = out.tell()
                _copy_bytes(file, span, out)
    described = metadata.described
    attributes = dict(described.attributes)
    for key in ("state_dict_metadata", "planner_data"):
        if isinstance(attributes.get(key), dict):
            attributes[key] = {name: value for name, value in attributes[key].items() if name not in left}
    attributes["storage_data"] = {
        index: _moved(info, moves)
        for index, info in attributes["storage_data"].items()
        if index.attributes["fqn"] not in left
    }
    again = StandIn(described.made_by, described.args)
    again.state = attributes
    write_whole(target / METADATA, pickled(again))
    return moves


def _copy_bytes(file: FileVersion, span: _Span, out: BinaryIO) -> None:
    at, end = span.offset, span.offset + span.length
    while at < end:
        data = read_bytes(file, at, min(CHUNK, end - at))
        if not data:
            raise CheckpointError(f"{file.path}: ends early")
        out.write(data)
        at += len(data)


def _moved(info: StandIn, moves: Mapping[_Span, int]) -> StandIn:
    """Return the entry of `.metadata` for a piece, with its new place."""
    said = info.attributes
    again = StandIn(info.made_by, info.args)
    span = _Span(said["relative_path"], said["offset"], said["length"])
    again.state = {**said, "offset": moves[span]}
    return again


def _fill(
    mixture: Mixture,
    kept: DistributedCheckpoint,
    target: Path,
    moves: Mapping[_Span, int] | None,
    options: CopyOptions,
) -> None:
    """Mix each tensor to its pieces, and correct their checksums."""
    done, total = 0, sum(mixture.spec(name).nbytes for name in mixture.kept.tensors)
    files = {piece.file.path.name for pieces in kept.pieces.values() for piece in pieces}
    descriptors = {name: os.open(target / name, os.O_RDWR | os.O_CLOEXEC) for name in sorted(files)}
    try:
        for name in sorted(mixture.kept.tensors):
            spec = mixture.spec(name)
            mean = whole_tensor(mixture, name, options.overrides)
            for piece in kept.pieces[name]:
                _put(kept, name, piece, mean, descriptors[piece.file.path.name], moves)
            done += spec.nbytes
            options.progress("mixing", done, total)
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)
    for name in sorted(files):
        flush(target / name)


def _put(
    kept: DistributedCheckpoint,
    name: str,
    piece: StoredBox,
    mean: Tensor,
    descriptor: int,
    moves: Mapping[_Span, int] | None,
) -> None:
    """Write a piece of a tensor to its place."""
    box = piece.box
    part = mean[tuple(slice(o, o + size) for o, size in zip(box.offsets, box.sizes, strict=True))]
    spec = TensorSpec(box.sizes, Dtype.of(mean.dtype))
    place = kept.place_of(name, piece, spec)
    new = piece.offset if moves is None else moves[_Span(piece.file.path.name, piece.offset, piece.length)]
    by = new - piece.offset
    write_elements(descriptor, spec, place._replace(offset=place.offset + by), part)
    records = zip_records(piece.file.path, piece.offset, piece.length)
    correct_checksums(descriptor, [record.moved(by) for record in records])


def _names_beside(source: Path) -> list[str]:
    return [name for name in BESIDE if (source / name).is_file()]


def _copied_small(file: Path, target: Path) -> str:
    """Copy a small file. Returns its SHA-256."""
    content = read_small(file, most=LARGEST)
    write_whole(target, content)
    return hashlib.sha256(content).hexdigest()
