"""From a path to a checkpoint: the layout is recognised by content, and headers alone are read.

A folder is opened as its library would open it: an adapter, model.safetensors, its index, pytorch_model.bin, its
index, a distributed checkpoint; else the one file in it that holds weights, whatever its name.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from soupcli.checkpoints.adapters import adapter
from soupcli.checkpoints.checkpoint import Checkpoint, Origin, StoredCheckpoint
from soupcli.checkpoints.formats import folder as folders
from soupcli.checkpoints.formats import safetensors as safetensors_file
from soupcli.checkpoints.formats import sharded
from soupcli.checkpoints.formats import torch_distributed as distributed
from soupcli.checkpoints.formats import torch_save as torch_file
from soupcli.checkpoints.formats.folder import refuse_foreign, refuse_parts, trainer_metrics
from soupcli.checkpoints.formats.pickles import without_prefixes
from soupcli.checkpoints.formats.torch_save import Contents
from soupcli.errors import CheckpointError
from soupcli.files.reading import FileVersion


class How(NamedTuple):
    """What a user may say of how checkpoints are opened."""

    weights_name: str | None = None  # the file to take where a folder holds several
    key: str | None = None  # where the state dict lies in a file of torch.save
    trust: bool = False  # whether the plain pickle of a distributed checkpoint may be opened
    allow: tuple[str, ...] = ()  # classes in pickles that an empty stand-in may take the place of
    base: Path | None = None  # the network that adapters were trained on


def open_checkpoint(path: Path, how: How | None = None) -> Checkpoint:
    """The checkpoint at `path`, a file or folder, by its headers.

    Raises CheckpointError where nothing there can be read, naming what was found.
    """
    how = how or How()
    if path.is_dir():
        return _open_folder(path, how)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder")
    if not path.is_file():
        raise CheckpointError(f"{path}: neither a file nor a folder")
    if path.name in adapter.WEIGHTS and (path.parent / adapter.CONFIG).is_file():
        return _open_adapter(path, path.parent, how)
    return _open_file(path, path, how, whole_folder=path.name in folders.KNOWN_NAMES)


def _open_folder(path: Path, how: How) -> Checkpoint:
    if how.weights_name is not None:
        weights = path / how.weights_name
        if not weights.is_file():
            raise CheckpointError(f"{path}: has no file {how.weights_name}", hint=folders.listing(path))
        if how.weights_name in adapter.WEIGHTS:
            return _open_adapter(path, path, how)
        return _open_file(path, weights, how)
    if (path / adapter.CONFIG).is_file():
        return _open_adapter(path, path, how)
    known = folders.known_weights(path)
    if known is not None:
        return _open_file(path, known, how)
    parts = distributed.distributed_folder(path)
    if parts is not None:
        side, metrics = folders.side_files(path), trainer_metrics(path)
        return distributed.open_distributed(path, parts, side, metrics, key=how.key, trust=how.trust, allow=how.allow)
    refuse_foreign(path)
    return _open_file(path, folders.only_weights(path), how)


def _open_adapter(path: Path, folder: Path, how: How) -> Checkpoint:
    weights = next((folder / name for name in adapter.WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise CheckpointError(f"{folder}: has {adapter.CONFIG} and no {adapter.WEIGHTS[0]}")
    stored = _open_file(path, weights, how, prefixes=False)
    for_base = How(trust=how.trust, allow=how.allow)
    return adapter.open_adapter(stored, folder, lambda base: open_checkpoint(base, for_base), how.base)


def _open_file(
    path: Path, weights: Path, how: How, *, whole_folder: bool = True, prefixes: bool = True
) -> StoredCheckpoint:
    refuse_foreign(weights)
    if weights.name.endswith(folders.INDEX_SUFFIX):
        contents, files = sharded.read_index(weights, lambda shard: _contents(shard, how))
    else:
        files = (FileVersion.of(weights),)
        contents = _contents(files[0], how)
    names = without_prefixes(contents.specs) if prefixes else {name: name for name in contents.specs}
    origin, folder = contents.origin, weights.parent
    return StoredCheckpoint(
        path,
        {name: contents.specs[stored] for stored, name in names.items()},
        {name: contents.places[stored] for stored, name in names.items()},
        files,
        folders.side_files(folder) if whole_folder else (),
        origin._replace(metrics={**origin.metrics, **(trainer_metrics(folder) if whole_folder else {})}),
    )


def _contents(file: FileVersion, how: How) -> Contents:
    if torch_file.is_torch_file(file):
        return torch_file.read_header(file, key=how.key, allow=how.allow)
    if safetensors_file.is_safetensors(file):
        specs, places, metadata = safetensors_file.read_header(file)
        refuse_parts(file.path, metadata)
        return Contents(specs, places, Origin("safetensors"))
    raise CheckpointError(
        f"{file.path}: not a checkpoint: neither safetensors nor written by torch.save",
        hint="--ckpts takes checkpoint files and folders that hold one",
    )
