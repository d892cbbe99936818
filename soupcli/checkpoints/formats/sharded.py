"""Hugging Face's sharded layout: an index file that maps each tensor to one of the shards beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from soupcli.checkpoints.contents import Contents
from soupcli.errors import CheckpointError
from soupcli.files.reading import FileVersion, read_bytes

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import StoredTensor, TensorSpec

LONGEST_NAME = 255  # of a file, on every usual file system


def file_beside(naming: Path, name: str) -> FileVersion:
    """The file `name`, which the file `naming` names, in the same folder.

    Raises CheckpointError where it is missing, where the name is a path, and where it is a link out of the folder.
    """
    if (
        len(name) > LONGEST_NAME
        or PurePosixPath(name).name != name
        or "\\" in name
        or name in ("", ".", "..")
        or "\0" in name
    ):
        raise CheckpointError(
            f"{naming}: names {name!r}, which is not a file name", hint="the files that it names lie beside it"
        )
    path = naming.parent / name
    if not path.is_file():
        raise CheckpointError(f"{naming}: names the file {name}, which is not there", hint="copy the missing file")
    if path.is_symlink():
        folder, target = path.parent.resolve(), path.resolve()
        if not target.is_relative_to(folder) and not _in_hub_cache(folder, target):
            raise CheckpointError(
                f"{path}: is a link out of its folder, to {target}",
                hint=f"if these weights are meant, copy them, or give the folder {target.parent}",
            )
    return FileVersion.of(path)


def _in_hub_cache(folder: Path, target: Path) -> bool:
    """Whether the link is one of the Hugging Face cache: snapshots/REVISION/NAME -> blobs/HASH of one repository."""
    return folder.parent.name == "snapshots" and target.parent == folder.parent.parent / "blobs"


MAX_INDEX = 100_000_000
STALE = "the index is of another save than the shards: save the checkpoint again"


def read_index(index: Path, open_shard: Callable[[FileVersion], Contents]) -> tuple[Contents, tuple[FileVersion, ...]]:
    """Specs and places of the tensors in all shards that `index` names, and the shards.

    Raises CheckpointError where a shard is missing or lies elsewhere, and where index and shards disagree.
    """
    weight_map = _weight_map(index)
    names_in: dict[str, set[str]] = {}
    for name, file in weight_map.items():
        names_in.setdefault(file, set()).add(name)
    shards = tuple(file_beside(index, file) for file in sorted(names_in))
    specs: dict[str, TensorSpec] = {}
    places: dict[str, StoredTensor] = {}
    opened = [open_shard(shard) for shard in shards]
    for shard, contents in zip(shards, opened, strict=True):
        _compare(index, shard, names_in[shard.path.name], set(contents.specs))
        if contents.origin.key != opened[0].origin.key:
            raise CheckpointError(
                f"{shard.path}: its weights are under {contents.origin.key!r}, those of {shards[0].path.name} under "
                f"{opened[0].origin.key!r}",
                hint="--key takes the same from both",
            )
        specs |= contents.specs
        places |= contents.places
    origin = opened[0].origin
    return Contents(specs, places, origin._replace(format=f"sharded {origin.format}")), shards


def is_index(path: Path) -> bool:
    """Whether the file is JSON that maps tensors to shards."""
    try:
        return bool(_weight_map(path))
    except CheckpointError:
        return False


def _weight_map(index: Path) -> dict[str, str]:
    file = FileVersion.of(index)
    if file.size > MAX_INDEX:
        raise CheckpointError(f"{index}: {file.size} bytes, an index has at most {MAX_INDEX}")
    try:
        content: Any = json.loads(read_bytes(file, 0, file.size), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as cause:
        raise CheckpointError(f"{index}: not JSON: {cause}", hint="copy or save the checkpoint again") from cause
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise CheckpointError(f"{index}: has no weight_map from tensor names to file names")
    return weight_map


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError("a key stands there twice")
    return names


def _compare(index: Path, shard: FileVersion, mapped: set[str], stored: set[str]) -> None:
    for name in sorted(mapped - stored):
        raise CheckpointError(
            f"{index}: says that {shard.path.name} has tensor {name!r}, it does not",
            hint=STALE,
        )
    for name in sorted(stored - mapped):
        raise CheckpointError(
            f"{index}: does not name tensor {name!r}, which {shard.path.name} has",
            hint=STALE,
        )
